#!/usr/bin/env python3
"""What Switchback, nginx and HAProxy do with each request of requests.txt and each response of responses.txt, as two Markdown tables.

Each proxy stands before backends of its own. The one for requests reads what it is sent as leniently as a careless server would: a line may end
with a bare LF, chunked wins over a length. So "2 requests" where the client meant one is what an attacker wants. The one for responses says what the
case says and then, on the same connection, a whole response with the body `evil`, which no client may ever see.

Usage: tests/smuggling/verdicts.py [OUT.md]      needs nginx, haproxy and a built switchback (apt-get install nginx-light haproxy; make build)
"""

import os, re, socket, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BINARY = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "switchback")


EVIL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
PROXIES = ["switchback", "nginx", "haproxy"]


def unescaped(text):
    letters = {"r": "\r", "n": "\n", "t": "\t", "\\": "\\"}
    unescape = lambda match: chr(int(match[1][1:], 16)) if match[1][0] == "x" and len(match[1]) > 1 else letters.get(match[1], "")
    return re.sub(r"\\(x..|.)", unescape, text).encode("latin-1")


def cases(file):
    """Verdict, name, what the backend should read (None where that is left open), and the bytes."""
    for block in re.split(r"^=== ", open(os.path.join(HERE, file)).read(), flags=re.M)[1:]:
        title, *lines = block.splitlines()
        verdict, name = title.split(" ", 1)
        lines = [line for line in lines if line and not line.startswith("#")]
        expected = [unescaped(line[2:]).split(b" ", 3) for line in lines if line.startswith("> ")]
        # Of a host and a body that are said in a form of their own by each proxy, the method, the path and the body are compared.
        meant = [(method, target, b"".join(body)) for method, _, target, *body in expected] if expected else None
        yield verdict, name, meant, unescaped("".join(line for line in lines if not line.startswith("> ")))


class Backend:
    """Records requests, leniently read, and answers each."""

    patience = None

    def __init__(self):
        self.seen = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self.handle, args=(connection,), daemon=True).start()

    def handle(self, connection):
        connection.settimeout(self.patience)
        with connection, connection.makefile("rwb") as stream:
            try:
                self.serve(stream)
            except OSError:
                pass

    def serve(self, stream):
        try:
            while first := stream.readline():
                fields = {}
                while (line := stream.readline()) not in (b"\r\n", b"\n", b""):
                    name, _, value = line.partition(b":")
                    fields[name.strip().lower()] = value.strip().lower()
                body = self.body(stream, fields)
                if body is None:
                    return  # it broke off: no request
                method, target = (first.split() + [b"", b""])[:2]
                if b"/v2/health" not in target:
                    self.seen.append((method, re.sub(rb"^http://[^/]*", b"", target), body))
                stream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                stream.flush()
        except ValueError:
            self.seen.append("nonsense")

    def body(self, stream, fields):
        if b"chunked" not in fields.get(b"transfer-encoding", b""):
            length = int(fields.get(b"content-length", b"0"))
            body = stream.read(length)
            return body if len(body) == length else None
        body = b""
        while line := stream.readline():
            size = int(line.split(b";")[0], 16)
            if size == 0:
                while stream.readline() not in (b"\r\n", b"\n", b""):
                    pass
                return body
            body += stream.read(size + 2)[:size]
        return None


class Speaker(Backend):
    """Says the case's response to each request, and an evil one behind it; closes a connection on which nothing comes, for whoever waits for that."""

    said = b""
    patience = 0.2

    def serve(self, stream):
        while first := stream.readline():
            while stream.readline() not in (b"\r\n", b""):
                pass
            is_health = b"/v2/health" in first
            stream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" if is_health else self.said + EVIL)
            stream.flush()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def exchange(port, request):
    """What comes back until the proxy closes, or says nothing for a while; and whether it closed."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(0.5)
        try:
            client.sendall(request)
            while part := client.recv(65536):
                answer += part
        except TimeoutError:
            return answer, False
        except OSError:
            pass
    return answer, True


def of_request(port, backend, request, meant):
    backend.seen.clear()
    answer, _ = exchange(port, request)
    statuses = re.findall(rb"HTTP/1\.[01] (\d\d\d)", answer)
    seen = list(backend.seen)
    if not seen:
        return statuses[0].decode() if statuses else "closed"
    if "nonsense" in seen:
        return "**passed, and the backend cannot read it**"
    if len(seen) != (len(meant) if meant else 1):
        # Fewer than were meant, since the proxy refused the rest.
        is_refused = meant and len(seen) < len(meant) and seen == meant[: len(seen)] and len(statuses) > len(seen)
        return f"passed, then {statuses[-1].decode()}" if is_refused else f"**{len(seen)} request{'s' * (len(seen) > 1)}**"
    return "passed" if meant in (None, seen) else "**another request**"


def body_of(answer, is_head):
    """A response's body and what follows it, by its framing; None where it broke off or says nothing of its length."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if re.match(rb"HTTP/1\.[01] 1\d\d", head):
        return body_of(rest, is_head)
    if is_head or re.match(rb"HTTP/1\.[01] (204|304)", head):
        return b"", rest
    if re.search(rb"\r\ntransfer-encoding: *chunked", head, re.I):
        body = b""
        while match := re.match(rb"([0-9a-f]+)[^\r\n]*\r\n", rest, re.I):
            size = int(match[1], 16)
            if size == 0:
                return body, rest[match.end() :].partition(b"\r\n")[2]
            body, rest = body + rest[match.end() :][:size], rest[match.end() + size + 2 :]
        return None, b""
    if length := re.search(rb"\r\ncontent-length: *(\d+)", head, re.I):
        size = int(length[1])
        return (rest[:size], rest[size:]) if len(rest) >= size else (None, b"")
    return rest, b""


def of_response(port, backend, response, is_head):
    """The worse of two requests: what the first leaves on a kept connection comes with the second."""
    backend.said = response
    has_body = not is_head and not re.match(rb"HTTP/1\.[01] (204|304)", response)
    meant = b"hello" * response.count(b"hello") if has_body else b""
    found = []
    for _ in range(2):
        answer, is_closed = exchange(port, b"%s /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % (b"HEAD" if is_head else b"GET"))
        statuses = re.findall(rb"HTTP/[0-9.]+ (\d\d\d)", answer)
        body, behind = body_of(answer, is_head)
        if b"evil" in answer:
            found.append("**evil bytes**")
        elif not answer:
            found.append("closed" if is_closed else "no answer")
        elif statuses and statuses[0] >= b"500":
            found.append(statuses[0].decode())
        elif body is None:
            found.append("broken off" if is_closed else "no end")
        else:
            found.append("passed" if body == meant and not behind else f"**another body: {body + behind!r}**")
    return max(found, key=lambda verdict: verdict.startswith("**"))


def start(arguments, ports):
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for port in ports:
        until = time.monotonic() + 60
        while not is_answered(port):
            if process.poll() not in (None, 0) or time.monotonic() > until:
                sys.exit(f"verdicts.py: {arguments[0]} does not answer on port {port} (ended with {process.poll()})")
            time.sleep(0.01)
    return process


def is_answered(port):
    """Whether a request that nobody can misread is answered with 200: a port can be open before its proxy is ready."""
    try:
        return exchange(port, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")[0].startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def proxies(folder, requests, responses):
    """Starts all three, each with a port in front of either backend; the processes, and the ports."""
    ports = {(proxy, what): free_port() for proxy in PROXIES for what in ["requests", "responses"]}
    write = lambda name, text: open(os.path.join(folder, name), "w").write(text) and os.path.join(folder, name)
    started = []
    for what, backends in [("requests", requests), ("responses", responses)]:
        toml = write(f"{what}.toml", f"""
[listen]
traffic = "127.0.0.1:{ports['switchback', what]}"
admin = "127.0.0.1:{free_port()}"
[state]
data_dir = "{folder}/{what}"
[[route]]
name = "search"
[route.pools.blue]
endpoints = ["http://127.0.0.1:{backends['switchback'].port}"]
""")
        started.append(start([BINARY, "serve", "--config", toml], [ports["switchback", what]]))
    servers = "".join(f"""
  upstream {what} {{ server 127.0.0.1:{backends['nginx'].port} max_fails=0; keepalive 8; }}
  server {{ listen 127.0.0.1:{ports['nginx', what]};
    location / {{ proxy_pass http://{what}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_request_buffering off; }} }}
""" for what, backends in [("requests", requests), ("responses", responses)])
    conf = write("nginx.conf", f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{}}
http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
{servers} }}
""")
    parts = "".join(f"""
frontend of_{what}
  bind 127.0.0.1:{ports['haproxy', what]}
  default_backend {what}
backend {what}
  server one 127.0.0.1:{backends['haproxy'].port}
""" for what, backends in [("requests", requests), ("responses", responses)])
    cfg = write("haproxy.cfg", f"""
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
{parts}""")
    started.append(start(["nginx", "-c", conf, "-p", folder], [ports["nginx", "responses"]]))
    started.append(start(["haproxy", "-f", cfg], [ports["haproxy", "responses"]]))
    return started, ports


def table(what, rows):
    """Its rows, and how many of each proxy's verdicts are in bold."""
    text = [f"| {what} | Switchback | nginx | HAProxy |", "|---|---|---|---|"]
    text += [f"| {name} | {' | '.join(found)} |" for name, found in rows]
    return text, [sum(found[proxy].startswith("**") for _, found in rows) for proxy in range(3)]


def version(arguments):
    ran = subprocess.run(arguments, capture_output=True, text=True)
    return ran.stdout + ran.stderr


def report(of_requests, of_responses, nginx, haproxy):
    first, first_bold = table("request", of_requests)
    second, second_bold = table("response", of_responses)
    return "\n".join([
        "# Requests and responses that could be read in two ways, at three proxies",
        "",
        f"`tests/smuggling/verdicts.py`: Switchback against nginx {nginx} and HAProxy {haproxy} with their defaults. In bold is what went wrong: another request",
        "reached the backend than was meant, or another response the client.",
        "",
        "| in bold | Switchback | nginx | HAProxy |",
        "|---|---|---|---|",
        f"| of {len(of_requests)} requests | {' | '.join(map(str, first_bold))} |",
        f"| of {len(of_responses)} responses | {' | '.join(map(str, second_bold))} |",
        "",
        "What Switchback does with HTTP/2 in front of HTTP/1.1 is in [h2.txt](h2.txt), with a verdict for each case.",
        "",
        "## Requests",
        "",
        "A number is the status that the client gets when no request reaches the backend; `passed` says that the backend read what was meant: as many requests,",
        "and where a case says so the same methods, targets and bodies. The backend reads leniently: a bare LF ends a line, and chunked wins over a length.",
        "",
        *first,
        "",
        "## Responses",
        "",
        "A number is the status that the client gets from the proxy; `passed` says that it gets the body that was meant, `broken off` that the connection ends",
        "within it. Behind each response the backend says another one, with the body `evil`: *evil bytes* are those, or a field that was hidden in a value. Each is",
        "asked for twice, so that what is left on a kept connection is seen too. Where nginx finds no length that it can read, it passes on all that comes until",
        "the backend closes, which this one does when nothing has come for a while.",
        "",
        *second,
        "",
    ])


def main():
    requests = {proxy: Backend() for proxy in PROXIES}
    responses = {proxy: Speaker() for proxy in PROXIES}
    started, ports = proxies(tempfile.mkdtemp(), requests, responses)
    try:
        of_requests = [
            (name, [of_request(ports[proxy, "requests"], requests[proxy], request, meant) for proxy in PROXIES])
            for _, name, meant, request in cases("requests.txt")
        ]
        of_responses = [
            (name, [of_response(ports[proxy, "responses"], responses[proxy], response, name.startswith("HEAD")) for proxy in PROXIES])
            for _, name, _, response in cases("responses.txt")
        ]
    finally:
        for process in started:
            process.terminate()
    text = report(of_requests, of_responses, re.search(r"nginx/([\d.]+)", version(["nginx", "-v"]))[1], re.search(r"version ([\d.]+)", version(["haproxy", "-v"]))[1])
    print(text)
    if len(sys.argv) > 1:
        open(sys.argv[1], "w").write(text)


main()
