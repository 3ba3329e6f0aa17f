#!/usr/bin/python3
"""Serves one client after the other at all of its listeners. Its first line is the number of the
listener, from 0, and its process ID; then it reads a line: "shutdown" shuts that listener down."""
import os
import select
import socket
import struct
import sys

count = int(sys.argv[sys.argv.index("-s") + 1]) if "-s" in sys.argv else 1
listeners = [socket.socket(fileno=6 + n) for n in range(count)]
generation = int(os.environ["GENERATION"], 8)


def report(available):
    try:
        os.write(5, struct.pack("iIi", os.getpid(), generation, available))
    except ConnectionError:
        pass  # the master has closed the channel: the next turn ends


while True:
    ready = select.select([5, *listeners], [], [])[0]
    if 5 in ready:
        break
    try:
        client = ready[0].accept()[0]
    except OSError:
        continue
    report(0)
    number = listeners.index(ready[0])
    with client, client.makefile("rw") as text:
        text.write(f"{number} {os.getpid()}\n")
        text.flush()
        if text.readline() == "shutdown\n":
            ready[0].shutdown(socket.SHUT_RD)
            text.write("done\n")
    report(1)
