#!/usr/bin/python3
"""What a mail system talks to: `auth SOCKET` is a server of Dovecot's authentication protocol that takes
any password, `milter SOCKET` is a mail filter that adds a header, and `client ADDRESS TO [USER]` sends a
message over TLS."""

import base64
import os
import smtplib
import socket
import socketserver
import ssl
import struct
import sys


class Auth(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(
            b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t%s\nDONE\n" % (b"0" * 32)
        )
        for line in self.rfile:
            fields = line.rstrip(b"\n").split(b"\t")
            if fields[0] == b"AUTH":
                response = next(f[5:] for f in fields if f.startswith(b"resp="))
                user = base64.b64decode(response).split(b"\0")[1]
                self.wfile.write(b"OK\t%s\tuser=%s\n" % (fields[1], user))


class Milter(socketserver.StreamRequestHandler):
    def handle(self):
        while len(head := self.rfile.read(4)) == 4:
            packet = self.rfile.read(struct.unpack("!I", head)[0])
            command = packet[:1]
            if command == b"O":
                # Version 6, may add headers, wants all steps.
                self.reply(b"O" + struct.pack("!III", 6, 1, 0))
            elif command == b"E":
                self.reply(b"hX-Filtered\0yes\0")
                self.reply(b"c")
            elif command == b"Q":
                return
            elif command not in b"DA":
                self.reply(b"c")

    def reply(self, packet):
        self.wfile.write(struct.pack("!I", len(packet)) + packet)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def serve(path, handler):
    # It appears when clients may connect.
    draft = path + ".new"
    server = Server(draft, handler)
    os.chmod(draft, 0o666)
    os.rename(draft, path)
    server.serve_forever()


def client(address, to, user=None):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = address.rsplit(":", 1)
    with smtplib.SMTP(host, int(port), timeout=60) as smtp:
        smtp.starttls(context=context)
        if user:
            smtp.login(user, "password")
        smtp.sendmail("from@example.test", [to], "Subject: hello\n\nhello\n")


if sys.argv[1] == "client":
    client(*sys.argv[2:])
else:
    serve(sys.argv[2], {"auth": Auth, "milter": Milter}[sys.argv[1]])
