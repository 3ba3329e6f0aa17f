#!/usr/bin/python3
"""A preloaded service, in Python: a template that forks children. A child greets each client with
its process ID and repeats one line that the client sends.

    master.cf     127.0.0.1:7009 inet n n n - 5 preload.py nobody
    master.toml   [service."127.0.0.1:7009/inet"]
                  preload = true
                  accept = "ordered"          # or without this line

Expensive preparation (imports, a model) belongs into load(): it is done once, and its memory is
shared by all children.
"""

import errno
import getopt
import os
import pwd
import random
import select
import signal
import socket
import struct
import sys

# After this many clients, and (of children that share the listener) after this time without one,
# in seconds, a child leaves and is replaced.
CLIENTS = 10_000
IDLE = 100
# Maximum time for a client, in seconds.
TIMEOUT = 60


def load(arguments):
    """What takes long. The first argument is the user."""


def serve(client):
    client.settimeout(TIMEOUT)
    with client, client.makefile("rw") as stream:
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        stream.write(stream.readline())


def become(name):
    """Gives up root's privileges permanently."""
    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


class Template:
    """The part that is the same in all templates."""

    def __init__(self):
        # The master's options; "-s" is the number of listeners.
        options, self.arguments = getopt.getopt(sys.argv[1:], "cdln:o:s:t:uvz")
        count = int(dict(options).get("-s", 1))
        self.listeners = [socket.socket(fileno=6 + n) for n in range(count)]
        self.socket = os.environ.pop("MASTER_TEMPLATE", None)
        if self.socket is None:
            sys.exit(f"{sys.argv[0]}: not preloaded: write preload = true in master.toml")
        self.master = socket.socket(fileno=5)
        self.orders = self.master.makefile("rb")

    def ready(self):
        """Forks children on order. Returns in each child, with its channel and the order's words."""
        self.master.sendall(b"ready\n")
        while True:
            order = self.orders.readline().decode().split()
            if not order:
                sys.exit()  # the master has ended, or has another template
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            answer = "forked"
            try:
                connection.connect(self.socket)
                is_child = self.fork_twice()
            except OSError as error:
                is_child, answer = False, f"failed {error}"
            if is_child:
                return self.child(connection), order
            connection.close()
            self.master.sendall(f"{answer}\n".encode())

    @staticmethod
    def fork_twice():
        """Whether this is the child. It is the master's when its own parent has ended."""
        parent = os.fork()
        if parent == 0:
            try:
                child = os.fork()
            except OSError:
                os._exit(1)
            if child == 0:
                return True
            os._exit(0)
        _, status = os.waitpid(parent, 0)
        if status:
            raise OSError("cannot fork")
        return False

    def child(self, connection):
        """Has the master know this process. The connection becomes descriptor 5."""
        self.orders.close()
        os.close(int(self.socket.rsplit("/", 1)[1]))
        os.dup2(connection.fileno(), self.master.fileno())
        self.master.sendall(b"hello\n")
        if self.master.recv(6, socket.MSG_WAITALL) != b"known\n":
            os._exit(0)
        self.master.sendall(b"ready\n")
        random.seed()
        return self.master


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


def ordered(channel, accept):
    """Serves clients when the master orders it."""
    me = struct.pack("=i", os.getpid())
    for _ in range(CLIENTS):
        channel.sendall(b"I" + me + b"\n")
        while True:
            order = channel.recv(6, socket.MSG_WAITALL)
            if len(order) < 6:
                return
            if order[:1] == b"A":
                break  # others are pings
        client = accept()
        # Report even without a client, because another child may have been faster.
        channel.sendall(b"B" + me + b"\n")
        if client:
            yield client


def shared(channel, accept, listeners, generation):
    """Serves clients as they come."""

    def report(available):
        try:
            channel.sendall(struct.pack("=iii", os.getpid(), generation, available))
        except OSError:
            pass  # the master has ended, as the next poll() says

    poller = select.poll()
    for fd in [channel, *listeners]:
        poller.register(fd, select.POLLIN)
    for _ in range(CLIENTS):
        ready = [fd for fd, _ in poller.poll(IDLE * 1000)]
        if not ready or channel.fileno() in ready:
            return
        client = accept()
        if client:
            report(0)
            yield client
            report(1)


def main(load=load, serve=serve):
    # The master ends surplus children by SIGINT, which must not print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    template = Template()
    load(template.arguments)
    channel, (_, generation, *words) = template.ready()
    if template.arguments:
        become(template.arguments[0])
    listeners = template.listeners
    for listener in listeners:
        listener.setblocking(False)

    def accept():
        return accept_one(listeners)

    if "accept=ordered" in words:
        clients = ordered(channel, accept)
    else:
        clients = shared(channel, accept, listeners, int(generation, 8))
    for client in clients:
        try:
            serve(client)
        except (OSError, UnicodeError) as error:
            print(f"{sys.argv[0]}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
