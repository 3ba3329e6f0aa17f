#!/usr/bin/python3
"""The example's template, which waits on its way: stepwise-template.py EXAMPLE DIRECTORY. Before each
step it waits for as long as the directory has a file `hold-STEP`, and says so by a file `at-STEP`."""

import importlib.machinery
import importlib.util
import os
import sys
import time

# The example's directory is the source's.
sys.dont_write_bytecode = True

example, directory = sys.argv[-2:]
del sys.argv[-2:]
loader = importlib.machinery.SourceFileLoader("example", example)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("example", loader))
loader.exec_module(module)


def before(step):
    hold, at = (os.path.join(directory, f"{word}-{step}") for word in ("hold", "at"))
    if os.path.exists(hold):
        with open(at, "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
    while os.path.exists(hold):
        time.sleep(0.01)


class Slow:
    """The channel of a child, which waits before it answers."""

    def __init__(self, channel):
        self.channel = channel

    def __getattr__(self, name):
        return getattr(self.channel, name)

    def sendall(self, data):
        if data == b"ready\n":
            before("ready")
        self.channel.sendall(data)


class Stepwise(module.Template):
    def fork_twice(self):
        before("fork")
        is_child = super().fork_twice()
        before("hello" if is_child else "answer")
        return is_child

    def child(self, connection):
        channel = self.master
        self.master = Slow(channel)
        super().child(connection)
        return channel


module.Template = Stepwise
module.main(lambda _arguments: before("load"))
