#!/usr/bin/python3
"""A child that tells what it may do: see tests/programs/inside.rs."""
import ctypes, os, select, socket, struct, sys, threading
from contextlib import suppress

STATUS, LISTENER = 5, 6
generation = int(os.environ["GENERATION"], 8)
listener = socket.socket(fileno=LISTENER)
libc = ctypes.CDLL(None, use_errno=True)

def report(state):
    with suppress(ConnectionError):  # the next select tells that the master no longer reads
        os.write(STATUS, struct.pack("iIi", os.getpid(), generation, state))

def call(numbers):
    given = [ctypes.c_long(int(number)) for number in numbers.split()]
    result = libc.syscall(*given)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return str(result)

def thread():
    said = []
    try:
        started = threading.Thread(target=lambda: said.append("ok"))
        started.start()
    except RuntimeError:
        raise OSError(11, "")
    started.join()
    return said[0]

def answer(line):
    command, _, rest = line.partition(" ")
    if command == "read":
        with open(rest) as file:
            return file.read()
    if command == "open":
        os.close(os.open(rest, os.O_RDONLY))
        return "ok"
    if command == "create":
        os.close(os.open(rest, os.O_WRONLY | os.O_CREAT, 0o666))
        return "ok"
    if command == "call":
        return call(rest)
    if command == "thread":
        return thread()
    if command == "arguments":
        return "\n".join(sys.argv)
    raise OSError(-1, "")

while True:
    if STATUS in select.select([STATUS, listener], [], [])[0]:
        break
    try:
        client, address = listener.accept()
    except BlockingIOError:  # another process was faster
        continue
    report(0)
    with client:
        line = client.makefile().readline().rstrip()
        try:
            text = answer(line)
        except OSError as error:
            text = f"error {error.errno}"
        client.sendall(f"{text}\n".encode())
    report(1)
