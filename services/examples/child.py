#!/usr/bin/python3
"""A child of master(8) that returns its clients' text in capitals, one client at a time.

Its duties are described in master-protocol(7). In the table, with its limits:

    shout  inet  n  y  n  -  -  child.py -o max_idle=100 -o max_use=100 -o timeout=60
"""
import errno, getopt, os, pwd, random, select, socket, struct, sys, syslog
from contextlib import suppress

STATUS, LISTEN = 5, 6  # descriptors
TAKEN, AVAILABLE = 0, 1

def give_up_privileges(chroot, unprivileged):
    user = pwd.getpwuid(os.stat("private").st_uid) if unprivileged else None  # mail_owner
    if chroot: os.chroot(".")
    if user:
        os.setgroups([user.pw_gid])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

def report(available):
    generation = int(os.environ["GENERATION"], 8)
    with suppress(ConnectionError):  # then it is time to leave; select() shows that, too
        os.write(STATUS, struct.pack("iIi", os.getpid(), generation, available))

def next_client(listeners, max_idle):
    while ready := select.select([STATUS, *listeners], [], [], max_idle)[0]:
        if STATUS in ready: break  # the master has ended, or tells this child to leave
        try: return random.choice(ready).accept()[0]
        except BlockingIOError: pass  # another child was faster
        except OSError as why:
            if why.errno == errno.EINVAL: break  # the listener was shut down
            raise

def serve(client, timeout):
    client.settimeout(timeout)
    client.sendall(b"hello from %d\n" % os.getpid())
    while text := client.recv(4096): client.sendall(text.upper())

def main():
    syslog.openlog("child.py", syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_MAIL)
    options = getopt.getopt(sys.argv[1:], "lzdvucn:t:o:s:")[0]
    flags, limits = dict(options), {"max_idle": 100, "max_use": 100, "timeout": 60}
    limits.update(text.split("=", 1) for name, text in options if name == "-o")
    max_idle, uses, timeout = (int(limits[name]) for name in ("max_idle", "max_use", "timeout"))
    listeners = [socket.socket(fileno=LISTEN + n) for n in range(int(flags.get("-s", 1)))]
    give_up_privileges("-c" in flags, "-u" in flags)
    while (uses := uses - 1) >= 0 and (client := next_client(listeners, max_idle)):
        report(TAKEN)
        with client, suppress(OSError):  # the client may disconnect, or time out
            serve(client, timeout)
        report(AVAILABLE)

try:
    main()
except Exception as why:
    syslog.syslog(syslog.LOG_ERR, f"fatal: {why!r}")
    raise
