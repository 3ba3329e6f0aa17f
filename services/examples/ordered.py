#!/usr/bin/python3
"""A child of an ordered pool, in Python. It greets each client with its process ID and repeats
one line that the client sends.

    master.cf     127.0.0.1:7008 inet n n n - 5 ordered.py nobody
    master.toml   [service."127.0.0.1:7008/inet"]
                  accept = "ordered"

Expensive preparation (imports, a model) belongs before the loop: it is done once for each child,
and clients reach only children that have finished it.
"""

import errno
import getopt
import os
import pwd
import signal
import socket
import struct
import sys

# After this many clients the child leaves and is replaced, which frees leaked memory.
CLIENTS = 10_000
# Maximum time for a client, in seconds.
TIMEOUT = 60

# A message between master and child has six bytes: a letter, four bytes, a newline.
MESSAGE = 6
ACCEPT = b"A"
IDLE = b"I"
BUSY = b"B"


class Master:
    """The channel to the master, on descriptor 5."""

    def __init__(self):
        self.channel = socket.socket(fileno=5)

    def send(self, letter):
        self.channel.sendall(letter + struct.pack("=i", os.getpid()) + b"\n")

    def wait_for_order(self):
        """Waits for the order to accept a client; pings are ignored."""
        while True:
            order = self.channel.recv(MESSAGE, socket.MSG_WAITALL)
            if len(order) < MESSAGE:
                sys.exit()  # the master has ended, or tells the child to leave
            if order[:1] == ACCEPT:
                return


def become(name):
    """Gives up root's privileges permanently."""
    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def accept_one(listeners):
    """Accepts a client, if one waits: the listeners are non-blocking."""
    for listener in listeners:
        try:
            return listener.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            pass
        except OSError as error:
            if error.errno == errno.EINVAL:
                sys.exit()  # the listener was shut down
            raise
    return None


def serve(client):
    client.settimeout(TIMEOUT)
    with client, client.makefile("rw") as stream:
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        stream.write(stream.readline())


def main():
    # The master ends surplus children by SIGINT, which must not print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The master's options; "-s" is the number of listeners. Our own argument follows: a user.
    options, arguments = getopt.getopt(sys.argv[1:], "cdln:o:s:t:uvz")
    if arguments:
        become(arguments[0])
    count = int(dict(options).get("-s", 1))
    listeners = [socket.socket(fileno=6 + n) for n in range(count)]
    for listener in listeners:
        listener.setblocking(False)
    master = Master()
    for _ in range(CLIENTS):
        master.send(IDLE)
        master.wait_for_order()
        client = accept_one(listeners)
        # Report even without a client, because another child may have been faster.
        master.send(BUSY)
        if client:
            try:
                serve(client)
            except (OSError, UnicodeError) as error:
                print(f"{sys.argv[0]}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
