#!/usr/bin/env python3
"""Gets one document over HTTP or HTTPS, from public addresses only."""

import base64
import http.client
import ipaddress
import json
import os
import socket
import ssl
import sys
import time
import urllib.parse

MAX_BYTES = 1 << 20
KNOWN = {"allow_hosts", "timeout_seconds", "max_bytes", "max_redirects", "user_agent", "success_statuses"}
# Names under which clouds serve credentials; most resolve to link-local addresses, some only inside.
METADATA_NAMES = {"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
# Public by the registry, but metadata services answer there (Azure, Alibaba).
METADATA_ADDRESSES = {ipaddress.ip_address("168.63.129.16"), ipaddress.ip_address("100.100.100.200")}
CGNAT = ipaddress.ip_network("100.64.0.0/10")
NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
RETRIED_STATUSES = {408, 425, 429, 500, 502, 503, 504}
KEPT_HEADERS = ("content-type", "content-length", "etag", "last-modified", "location", "retry-after", "date")
# The caller may not speak for the connection itself, nor to another virtual host than the one that was checked.
REFUSED_HEADERS = {"host", "connection", "content-length", "transfer-encoding", "upgrade", "proxy-authorization", "te"}


class Refused(Exception):
    """Not allowed, or not possible as asked: trying again does not help."""


class Failed(Exception):
    """The network or the other side: trying again may help."""


def whole(config, key, default, low, high):
    """A number of the configuration within its limits."""
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Refused(f"config.{key} must be {low} to {high}")
    return value


def strings(config, key):
    """A list of strings of the configuration."""
    value = config.get(key, [])
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise Refused(f"config.{key} must be a list of strings")
    return value


class Settings:
    """The configuration, checked."""

    def __init__(self, config):
        unknown = sorted(set(config) - KNOWN)
        if unknown:
            raise Refused(f"unknown configuration keys: {', '.join(unknown)}")
        self.allowed = {host.lower() for host in strings(config, "allow_hosts")}
        self.timeout = whole(config, "timeout_seconds", 20, 1, 300)
        self.max_bytes = whole(config, "max_bytes", MAX_BYTES, 1, 4 << 20)
        self.max_redirects = whole(config, "max_redirects", 0, 0, 10)
        self.user_agent = config.get("user_agent", "bailey-fetch/0.1")
        self.successes = config.get("success_statuses", list(range(200, 300)))
        if not isinstance(self.successes, list) or not all(isinstance(s, int) for s in self.successes):
            raise Refused("config.success_statuses must be a list of numbers")

    def allows(self, host, port):
        """Whether the operator listed this very host (a name without a port means the usual two)."""
        name = f"[{host}]" if ":" in host else host
        return f"{name}:{port}" in self.allowed or (port in (80, 443) and host in self.allowed)


def parse_url(url):
    """Scheme, host, port and path of a URL that may be fetched."""
    if not isinstance(url, str) or len(url) > 4096:
        raise Refused("url must be a string of at most 4096 characters")
    if any(ord(c) <= 32 or ord(c) == 127 or c == "\\" for c in url):
        raise Refused("url must not contain blanks, control characters or backslashes")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        if ":" not in host:
            host = host.rstrip(".").encode("idna").decode().lower()
    except (ValueError, UnicodeError) as error:
        raise Refused(f"url is malformed: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise Refused("url must start with http:// or https://")
    if not host or "%" in host:
        raise Refused("url names no host")
    if parts.username is not None or parts.password is not None:
        raise Refused("url must not carry a user name or password")
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path + (f"?{query}" if query else "")


def embedded(address):
    """The IPv4 addresses inside an IPv6 one (mapped, 6to4, Teredo, NAT64): each would be the real target."""
    if address.version == 4:
        return []
    found = [a for a in (address.ipv4_mapped, address.sixtofour) if a is not None]
    found += list(address.teredo or ())
    if any(address in network for network in NAT64):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found


def is_public(address):
    """Whether an address belongs to the public network, and to nothing that serves credentials."""
    if address in METADATA_ADDRESSES or (address.version == 4 and address in CGNAT):
        return False
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if address.version == 6 and address.is_site_local:
        return False
    inner = embedded(address)
    # An address that only wraps another is never needed to reach a public host.
    return not inner


def resolve(settings, host, port):
    """The addresses of a host, all checked. One bad address among them refuses all: it is how rebinding looks."""
    allowed = settings.allows(host, port)
    if host in METADATA_NAMES and not allowed:
        raise Refused(f"{host} serves credentials of machines and is never fetched")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Failed(f"resolving {host}: {error}") from error
    addresses = []
    for family, _, _, _, target in found:
        address = ipaddress.ip_address(target[0].split("%")[0])
        if not allowed and not is_public(address):
            raise Refused(f"{host} has the address {address}, which is not public; list the host in allow_hosts if you mean it")
        addresses.append((family, target))
    if not addresses:
        raise Failed(f"{host} has no address")
    return addresses


def connect(addresses, deadline):
    """A connection to one of the addresses that were checked; no name is resolved again."""
    problem = None
    for family, target in addresses:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(left(deadline))
            sock.connect(target)
            return sock
        except OSError as error:
            problem = error
            sock.close()
    raise Failed(f"connecting: {problem}")


def tunnel(settings, proxy, host, port, deadline):
    """A connection through the proxy that a cell with egress has. The proxy resolves the name, and lets through what the owner granted."""
    if host in METADATA_NAMES and not settings.allows(host, port):
        raise Refused(f"{host} serves credentials of machines and is never fetched")
    name = f"[{host}]" if ":" in host else host
    at = urllib.parse.urlsplit(proxy)
    sock = socket.create_connection((at.hostname, at.port), timeout=left(deadline))
    try:
        sock.sendall(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
        head = b""
        # Byte by byte: what follows the head is the other side's.
        while not head.endswith(b"\r\n\r\n"):
            sock.settimeout(left(deadline))
            piece = sock.recv(1)
            if not piece or len(head) > 16384:
                raise Failed("the proxy of this cell hung up")
            head += piece
        status = head.split(None, 2)[1:2]
        if status == [b"403"]:
            raise Refused(f"{host}:{port} is not granted: the owner can list it under container.egress")
        if status != [b"200"]:
            raise Failed(f"the proxy of this cell does not reach {host}:{port}")
        return sock
    except OSError as error:
        sock.close()
        raise Failed(f"talking to the proxy of this cell: {error}") from error
    except (Refused, Failed):
        sock.close()
        raise


def left(deadline):
    """Seconds until the deadline."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise Failed("it took too long")
    return seconds


def exchange(settings, url, method, headers, deadline):
    """One request to one checked address; answers status, headers, body and whether it was cut."""
    scheme, host, port, path = parse_url(url)
    proxy = os.environ.get("https_proxy")
    sock = tunnel(settings, proxy, host, port, deadline) if proxy else connect(resolve(settings, host, port), deadline)
    try:
        if scheme == "https":
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        connection = http.client.HTTPConnection(host, port, timeout=left(deadline))
        connection.sock = sock
        if (scheme, port) in (("http", 80), ("https", 443)):
            host_header = f"[{host}]" if ":" in host else host
        else:
            host_header = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        sent = {"User-Agent": settings.user_agent, "Accept-Encoding": "identity", **headers}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": host_header, "Connection": "close", **sent}.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = read_body(response, sock, settings.max_bytes, deadline)
        return response.status, response.headers, body[: settings.max_bytes], len(body) > settings.max_bytes
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"the certificate of {host} is not accepted: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"talking to {host}: {error or type(error).__name__}") from error
    finally:
        sock.close()


def read_body(response, sock, max_bytes, deadline):
    """At most one byte more than allowed: enough to know that there was more."""
    body = bytearray()
    while len(body) <= max_bytes:
        sock.settimeout(left(deadline))
        piece = response.read1(min(65536, max_bytes + 1 - len(body)))
        if not piece:
            break
        body += piece
    return bytes(body)


def read_headers(payload):
    """Request headers of the caller, checked."""
    headers = payload.get("headers") or {}
    if not isinstance(headers, dict) or len(headers) > 32:
        raise Refused("headers must be a mapping of at most 32 names to strings")
    for name, value in headers.items():
        # RFC 9110 section 5.5: no control characters, or one header becomes two.
        if not isinstance(value, str) or any(ord(c) < 32 or ord(c) > 255 or ord(c) == 127 for c in value):
            raise Refused(f"header {name!r} must be a string without control characters")
        if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name) or name.lower() in REFUSED_HEADERS:
            raise Refused(f"header {name!r} may not be set")
    return headers


def fetch(settings, payload):
    """Follows as many redirects as allowed; each target is checked like the first."""
    url, method, headers = payload.get("url"), payload.get("method", "GET"), read_headers(payload)
    if method not in ("GET", "HEAD"):
        raise Refused("method must be GET or HEAD")
    deadline, asked = time.monotonic() + settings.timeout, url
    for hop in range(settings.max_redirects + 1):
        status, got, body, cut = exchange(settings, url, method, headers, deadline)
        location = got.get("location")
        if status not in (301, 302, 303, 307, 308) or not location or status in settings.successes or settings.max_redirects == 0:
            return told(asked, url, status, got, body, cut)
        if hop == settings.max_redirects:
            raise Refused(f"more than {settings.max_redirects} redirects")
        following = urllib.parse.urljoin(url, location)
        if url.startswith("https:") and not following.startswith("https:"):
            raise Refused("a redirect from https to http is not followed")
        if parse_url(following)[:3] != parse_url(url)[:3]:
            # What was meant for one host (cookies, tokens) is not for the next.
            headers = {}
        url = following
    raise Refused("unreachable")


def told(asked, url, status, headers, body, cut):
    """What the event tells."""
    content_type = headers.get("content-type", "")
    payload = {
        "url": asked, "final_url": url, "status": status, "content_type": content_type, "bytes": len(body), "truncated": cut,
        "headers": {k: headers[k] for k in KEPT_HEADERS if headers.get(k) is not None},
    }
    try:
        # A cut in the middle of a character must not turn text into bytes.
        payload["text"] = body.decode("utf-8", errors="ignore" if cut else "strict")
    except UnicodeDecodeError:
        payload["body_base64"] = base64.b64encode(body).decode()
    return payload


def failure(error, retry):
    """An error and whether trying again may help."""
    return {"status": "error", "error": error, "retry": retry}


def answer(config, payload):
    """The response for one URL."""
    settings = Settings(config)
    got = fetch(settings, payload)
    if got["status"] not in settings.successes:
        return failure(f"{got['url']} answered {got['status']}", got["status"] in RETRIED_STATUSES)
    result = f"{got['url']} answered {got['status']} with {got['bytes']} bytes{' (cut)' if got['truncated'] else ''}"
    return {"status": "ok", "result": result, "events": [{"type": "fetch.completed", "payload": got}]}


def respond(request):
    """The response to one request."""
    command, config = request.get("command"), request.get("config") or {}
    try:
        if command == "fetch":
            return answer(config, request.get("payload") or {})
        if command == "handle":
            return answer(config, (request.get("event") or {}).get("payload") or {})
        if command == "health":
            Settings(config)
            return {"status": "ok", "result": "the configuration is good; nothing was connected to"}
    except Refused as error:
        return failure(str(error), False)
    except Failed as error:
        return failure(str(error), True)
    return failure(f"fetch has no command {command!r}", False)


def main():
    """One request from standard input, one response to standard output."""
    try:
        request = json.load(sys.stdin)
        if not isinstance(request, dict):
            raise ValueError("not an object")
    except ValueError as error:
        response = failure(f"the request is not a JSON object: {error}", False)
    else:
        response = respond(request)
    json.dump(response, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
