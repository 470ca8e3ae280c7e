"""What fetch promises; it talks to a server of this test on loopback, and to nothing else."""

import http.server
import importlib.util
import ipaddress
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import unittest

RUN = pathlib.Path(__file__).resolve().parent.parent / "run.py"
SPEC = importlib.util.spec_from_file_location("fetch_run", RUN)
fetch_run = importlib.util.module_from_spec(SPEC)
sys.dont_write_bytecode = True
SPEC.loader.exec_module(fetch_run)


def call(request, **environment):
    text = request if isinstance(request, str) else json.dumps(request)
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, str(RUN)], input=text, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path; remembers the headers it got."""

    seen = []

    def do_GET(self):
        Handler.seen.append(dict(self.headers))
        status, headers, body = 200, {"Content-Type": "text/plain"}, b"hello"
        if self.path == "/big":
            body = b"x" * 3000
        elif self.path == "/bytes":
            body = b"\xff\xfe\x00"
        elif self.path == "/missing":
            status = 404
        elif self.path == "/busy":
            status = 503
        elif self.path == "/away":
            status, headers = 302, {"Location": "http://169.254.169.254/latest"}
        elif self.path == "/near":
            status, headers = 302, {"Location": "/"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format, *args):
        pass


def proxy(answer, onward=None):
    """A proxy for one connection: answers CONNECT with `answer`, then passes on to the local port `onward`. Its URL, and the heads it got."""
    listener = socket.create_server(("127.0.0.1", 0))
    heads = []

    def pump(source, sink):
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)

    def serve():
        client, _ = listener.accept()
        with client, listener:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            heads.append(head.split(b"\r\n")[0].decode())
            client.sendall(f"HTTP/1.1 {answer}\r\n\r\n".encode())
            if onward:
                with socket.create_connection(("127.0.0.1", onward)) as server:
                    back = threading.Thread(target=pump, args=(server, client))
                    back.start()
                    pump(client, server)
                    back.join()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", heads


class Fetch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        cls.port = cls.server.server_address[1]
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()

    def get(self, path="/", config=None, **payload):
        config = {"allow_hosts": [f"127.0.0.1:{self.port}"], **(config or {})}
        payload = {"url": f"http://127.0.0.1:{self.port}{path}", **payload}
        return call({"command": "fetch", "config": config, "payload": payload})

    def test_a_listed_host_is_fetched(self):
        response = self.get()
        self.assertEqual(response["status"], "ok", response)
        event = response["events"][0]
        self.assertEqual(event["type"], "fetch.completed")
        self.assertEqual((event["payload"]["status"], event["payload"]["text"]), (200, "hello"))

    def test_an_event_names_the_url_as_well(self):
        event = {"type": "x.y", "payload": {"url": f"http://127.0.0.1:{self.port}/"}}
        response = call({"command": "handle", "config": {"allow_hosts": [f"127.0.0.1:{self.port}"]}, "event": event})
        self.assertEqual(response["status"], "ok")

    def test_a_host_that_is_not_listed_must_be_public(self):
        for host in ("127.0.0.1", "[::1]", "0.0.0.0", "10.1.2.3", "169.254.169.254", "100.64.0.1", "[::ffff:127.0.0.1]",
                     "[fd00::1]", "[fe80::1]", "2130706433", "0x7f.1", "localhost", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"):
            url = f"http://{host}:{self.port}/"
            response = call({"command": "fetch", "config": {}, "payload": {"url": url}})
            self.assertEqual((response["status"], response["retry"]), ("error", False), f"{url}: {response}")

    def test_the_proxy_of_a_cell_resolves_and_decides(self):
        url, heads = proxy("200 OK", self.port)
        request = {"command": "fetch", "payload": {"url": "http://granted.test/"}}
        done = call(request, https_proxy=url)
        self.assertEqual((done["status"], heads), ("ok", ["CONNECT granted.test:80 HTTP/1.1"]))
        url, _ = proxy("403 Forbidden")
        done = call(request, https_proxy=url)
        self.assertEqual((done["status"], done["retry"]), ("error", False))
        self.assertIn("not granted", done["error"])
        url, _ = proxy("502 Bad Gateway")
        self.assertTrue(call(request, https_proxy=url)["retry"])

    def test_another_port_of_a_listed_host_is_not_listed(self):
        response = self.get(config={"allow_hosts": ["127.0.0.1"]})
        self.assertEqual((response["status"], response["retry"]), ("error", False))

    def test_public_addresses_are_told_from_others(self):
        for text in ("93.184.216.34", "1.1.1.1", "2606:4700:4700::1111"):
            self.assertTrue(fetch_run.is_public(ipaddress.ip_address(text)), text)
        for text in ("192.168.0.1", "172.16.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "198.18.0.1",
                     "100.127.255.255", "2001:db8::1", "ff02::1", "fec0::1", "::", "2001:0:4136:e378:8000:63bf:3fff:fdd2"):
            self.assertFalse(fetch_run.is_public(ipaddress.ip_address(text)), text)

    def test_a_long_body_is_cut(self):
        payload = self.get("/big", config={"max_bytes": 1000})["events"][0]["payload"]
        self.assertEqual((payload["bytes"], payload["truncated"]), (1000, True))

    def test_bytes_that_are_no_text_are_base64(self):
        self.assertEqual(self.get("/bytes")["events"][0]["payload"]["body_base64"], "//4A")

    def test_statuses_decide_about_retry(self):
        self.assertEqual(self.get("/missing")["retry"], False)
        self.assertEqual(self.get("/busy")["retry"], True)
        self.assertEqual(self.get("/missing", config={"success_statuses": [404]})["status"], "ok")

    def test_redirects_are_not_followed_unless_allowed_and_then_checked(self):
        self.assertIn("answered 302", self.get("/near")["error"])
        followed = self.get("/near", config={"max_redirects": 1})
        self.assertEqual(followed["events"][0]["payload"]["text"], "hello")
        refused = self.get("/away", config={"max_redirects": 3})
        self.assertEqual((refused["status"], refused["retry"]), ("error", False))
        self.assertIn("169.254.169.254", refused["error"])

    def test_headers_pass_but_not_those_of_the_connection(self):
        self.get("/", headers={"X-Mine": "yes"})
        self.assertEqual(Handler.seen[-1]["X-Mine"], "yes")
        for headers in ({"Host": "evil"}, {"X": "a\r\nY: b"}, {"A B": "c"}):
            self.assertEqual(self.get("/", headers=headers)["retry"], False)

    def test_a_head_has_no_body(self):
        self.assertEqual(self.get("/", method="HEAD")["events"][0]["payload"]["bytes"], 0)
        self.assertEqual(self.get("/", method="DELETE")["retry"], False)

    def test_odd_urls_are_refused(self):
        for url in ("file:///etc/passwd", "ftp://x/", "http://", "http://u:p@x.example/", "http://x.example/\r\nA: b", 7, None,
                    "http://metadata.google.internal/", "http://x.example:99999/"):
            response = call({"command": "fetch", "payload": {"url": url}})
            self.assertEqual((response["status"], response["retry"]), ("error", False), url)

    def test_bad_configuration_is_final(self):
        for config in ({"max_bytes": 0}, {"colour": 1}, {"allow_hosts": "x"}, {"timeout_seconds": "1"}):
            self.assertEqual(call({"command": "health", "config": config})["retry"], False, config)
        self.assertEqual(call({"command": "health"})["status"], "ok")


if __name__ == "__main__":
    unittest.main()
