#!/usr/bin/python3
"""Clients that send mail: mail_load.py HOST PORT CLIENTS RECIPIENT.

They end when the server refuses connections. With SIGUSR1 they open no further ones, as behind a balancer
that has taken the server out.
Writes "ready" when the first message of each client was accepted; at the end one line of JSON: how many
messages were accepted, how many had a temporary error, and how many sessions that had begun (with the
server's greeting) were cut without an answer.
"""
import collections, json, signal, smtplib, sys, threading, time

host, port, clients, recipient = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
counts = collections.Counter(accepted=0, deferred=0, cut=0, waiting=0, failed=0)
lock = threading.Lock()
first = threading.Barrier(clients + 1)
stopped = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: stopped.set())
BODY = "Subject: load\r\n\r\n" + "a line of the message\r\n" * 40


def count(what):
    with lock:
        counts[what] += 1


def one(server):
    """Sends a message in a session that has begun. What came of it."""
    try:
        server.ehlo("client.test")
        server.mail("from@client.test")
        code, _ = server.rcpt(recipient)
        if code != 250:
            return "deferred"
        # Clients are still connected when the server is stopped.
        time.sleep(0.05)
        code, _ = server.data(BODY)
        return "accepted" if code == 250 else "deferred"
    except (smtplib.SMTPServerDisconnected, ConnectionError, OSError):
        return "cut"
    except smtplib.SMTPResponseException as error:
        return "deferred" if error.smtp_code // 100 == 4 else "failed"


def client():
    begun = False
    while not stopped.is_set():
        server = smtplib.SMTP(timeout=60)
        try:
            server.connect(host, port)
        except ConnectionRefusedError:
            return
        except (smtplib.SMTPServerDisconnected, ConnectionError, OSError):
            # In the queue of the listener: no process had this client yet.
            count("waiting")
            continue
        count(one(server))
        server.close()
        if not begun:
            begun = True
            first.wait()


threads = [threading.Thread(target=client) for _ in range(clients)]
for thread in threads:
    thread.start()
first.wait()
print("ready", flush=True)
for thread in threads:
    while thread.is_alive():
        thread.join(0.2)
print(json.dumps(counts), flush=True)
