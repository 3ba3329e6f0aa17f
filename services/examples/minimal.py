#!/usr/bin/python3
import errno, os, select, socket, struct, sys
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
    if STATUS in ready: break  # end of file: it is time to leave
    try: client, address = ready[0].accept()
    except BlockingIOError: continue  # another process was faster
    except OSError as error:
        if error.errno == errno.EINVAL: break  # the listener was shut down: leave, too
        raise
    report(BUSY)
    with client, suppress(OSError): client.sendall(b"hello\n")  # it may disconnect at any time
    report(AVAILABLE)
