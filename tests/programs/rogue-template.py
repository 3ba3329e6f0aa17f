#!/usr/bin/python3
"""The example's template with a fault: rogue-template.py EXAMPLE KIND MARK USER. It shows the fault
once, when the file MARK is there, which it removes."""

import importlib.machinery
import importlib.util
import os
import signal
import socket
import sys
import time

# The example's directory is the source's.
sys.dont_write_bytecode = True

example, kind, mark, user = sys.argv[-4:]
sys.argv[-4:] = [user]
loader = importlib.machinery.SourceFileLoader("example", example)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("example", loader))
loader.exec_module(module)


def is_marked():
    try:
        os.unlink(mark)
    except FileNotFoundError:
        return False
    return True


def wait():
    while True:
        time.sleep(1000)


def load(_arguments):
    if kind.startswith("load-") and is_marked():
        if kind == "load-exit":
            sys.exit(3)
        wait()


class Rogue(module.Template):
    faulty = False

    def fork_twice(self):
        self.faulty = is_marked()
        if self.faulty and kind == "ended":
            return self.fork_and_wait()
        if self.faulty:
            self.fork_wrongly()
        return super().fork_twice() if not (self.faulty and kind == "once") else self.fork_once()

    def say(self, text):
        self.master.sendall(text.encode())

    def fork_wrongly(self):
        if kind == "exit":
            sys.exit(4)
        elif kind == "template-child":
            # Its child shall have the template's channel.
            self.kept = os.dup(self.master.fileno())
        elif kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "hang":
            wait()
        elif kind == "close":
            self.orders.close()
            self.master.close()
            wait()
        elif kind == "garbage":
            self.say("spoon\n")
            wait()
        elif kind == "long":
            self.say("x" * 300)
            wait()
        elif kind == "early":
            self.say("forked\nforked\n")
        elif kind == "again":
            self.say("ready\n")
        elif kind == "twice":
            other = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            other.connect(self.socket)
        elif kind == "failed":
            raise OSError("no room")
        elif kind == "crowd":
            # All say hello through the one connection.
            parent = os.fork()
            if parent == 0:
                for _ in range(1000):
                    if os.fork() == 0:
                        os._exit(0)
                os._exit(0)
            os.waitpid(parent, 0)
        elif kind == "descriptors":
            try:
                socket.send_fds(self.master, [b"f"], [0])
            except PermissionError:
                self.say("spoon\n")
            wait()

    def fork_and_wait(self):
        """The child has ended when the template says that it has forked."""
        reading, writing = os.pipe()
        if super().fork_twice():
            return True
        os.close(writing)
        os.read(reading, 1)
        return False

    def fork_once(self):
        """The child stays the template's."""
        return os.fork() == 0

    def child(self, connection):
        if not self.faulty:
            return super().child(connection)
        if kind == "nothing":
            wait()
        elif kind == "leave":
            os._exit(0)
        elif kind == "ended":
            super().child(connection)
            os._exit(0)
        elif kind == "exec":
            os.dup2(connection.fileno(), 1)
            os.execlp("echo", "echo", "hallo")
        elif kind == "deaf":
            os.dup2(connection.fileno(), 5)
            connection.sendall(b"hello\n")
            wait()
        elif kind == "garbage-child":
            channel = super().child(connection)
            try:
                channel.sendall(b"garbage-----")
            except OSError:
                pass
            return channel
        elif kind == "template-child":
            # It speaks as the template.
            super().child(connection)
            os.dup2(self.kept, 5)
            self.say("forked\nready\n")
            # It may count as a child of the service by now.
            os._exit(0)
        elif kind == "crowd-hello":
            for _ in range(100):
                if os.fork() == 0:
                    connection.sendall(b"hello\n")
                    os._exit(0)
            wait()
        elif kind == "second":
            connection.sendall(b"hello\n")
            connection.recv(6)
            if os.fork() == 0:
                connection.sendall(b"ready\n")
            wait()
        elif kind == "forge":
            # It connects again itself.
            other = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            other.connect(self.socket)
            try:
                other.sendall(b"hello\n")
            except BrokenPipeError:
                pass
        return super().child(connection)

    def ready(self):
        if kind == "unconnected" and is_marked():
            self.say("ready\n")
            self.orders.readline()
            self.say("forked\n")
            wait()
        if kind == "self" and is_marked():
            self.say("ready\n")
            self.orders.readline()
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(self.socket)
            connection.sendall(b"hello\n")
            wait()
        return super().ready()


module.Template = Rogue
module.main(load)
