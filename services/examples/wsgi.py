#!/usr/bin/python3
"""A web application (WSGI) that a preloaded pool serves: the application is loaded once, and its
memory is shared by all children. It needs preload.py beside it.

    master.cf     127.0.0.1:8000 inet n n n - 10 wsgi.py nobody shop.main:application
    master.toml   [service."127.0.0.1:8000/inet"]
                  preload = true
                  accept = "ordered"

Without the second argument it is wsgiref's demonstration. Give it a proxy before it that speaks with
slow clients.
"""

import importlib
import socket
from wsgiref.handlers import BaseHandler
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, demo_app

import preload


class Handler(WSGIRequestHandler):
    """Handles one request."""

    def log_message(self, *_):
        """Logs nothing: the application and the proxy do."""

    def address_string(self):
        return self.client_address[0] if self.client_address else ""


class Server(WSGIServer):
    """What a handler knows of its server. The listeners are the master's."""

    def __init__(self, application):
        super().__init__(("localhost", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.server_name, self.server_port = socket.gethostname(), 0
        self.setup_environ()
        # wsgiref shows applications the environment, of which this is the master's business.
        BaseHandler.os_environ.pop("MASTER_TEMPLATE", None)
        self.set_app(application)


server = None


def load(arguments):
    global server
    application = demo_app
    if len(arguments) > 1:
        module, name = arguments[1].split(":")
        application = getattr(importlib.import_module(module), name)
    server = Server(application)


def serve(client):
    client.settimeout(preload.TIMEOUT)
    with client:
        port = client.getsockname()[1] if client.family != socket.AF_UNIX else 0
        server.base_environ["SERVER_PORT"] = str(port)
        Handler(client, client.getpeername(), server)


if __name__ == "__main__":
    preload.main(load, serve)
