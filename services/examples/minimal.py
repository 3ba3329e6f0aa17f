#!/usr/bin/python3
import contextlib, os, select, socket, struct, sys
generation, gone = int(os.environ["GENERATION"], 8), contextlib.suppress(OSError)
count = int(sys.argv[sys.argv.index("-s") + 1]) if "-s" in sys.argv else 1
listeners = [socket.socket(fileno=number) for number in range(6, 6 + count)]
while 5 not in (ready := select.select([5, *listeners], [], [])[0]):  # 5: it is time to leave
    with contextlib.suppress(BlockingIOError), ready[-1].accept()[0] as client:
        with gone: os.write(5, struct.pack("iIi", os.getpid(), generation, 0))  # taken
        with gone: client.sendall(b"hello\n")
    with gone: os.write(5, struct.pack("iIi", os.getpid(), generation, 1))  # available again
