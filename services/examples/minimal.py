#!/usr/bin/python3
import os, select, socket, struct, sys
from contextlib import suppress

STATUS, LISTENER = 5, 6  # descriptors that the master hands over
BUSY, AVAILABLE = 0, 1
generation = int(os.environ["GENERATION"], 8)
count = int(sys.argv[sys.argv.index("-s") + 1]) if "-s" in sys.argv else 1
listeners = [socket.socket(fileno=LISTENER + n) for n in range(count)]

def report(state):
    with suppress(ConnectionError):  # the master has closed the channel: serve, then leave
        os.write(STATUS, struct.pack("iIi", os.getpid(), generation, state))

while True:
    ready = select.select([STATUS, *listeners], [], [])[0]
    if STATUS in ready:
        break  # end of file: it is time to leave
    with suppress(BlockingIOError):  # another process was faster
        client, address = ready[0].accept()
        report(BUSY)
        with client, suppress(OSError):  # the client may disconnect at any time
            client.sendall(b"hello\n")
        report(AVAILABLE)
