#!/usr/bin/env python3
"""What Switchback, nginx and HAProxy do with each request of requests.txt, side by side, as a Markdown table.

Each proxy stands before the same backend, which reads what it is sent as leniently as a careless server would: a line may end with a bare LF,
chunked wins over a length. So "2 requests" where the client meant one is what an attacker wants.

Usage: tests/smuggling/verdicts.py [OUT.md]      needs nginx, haproxy and a built switchback (apt-get install nginx-light haproxy; make build)
"""

import os, re, socket, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BINARY = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "switchback")


def cases():
    for block in re.split(r"^=== ", open(os.path.join(HERE, "requests.txt")).read(), flags=re.M)[1:]:
        title, *lines = block.splitlines()
        verdict, name = re.match(r"(passed \d|refused) (.*)", title).groups()
        text = "".join(line for line in lines if line and not line.startswith("#"))
        unescape = lambda match: {"r": "\r", "n": "\n", "t": "\t", "\\": "\\"}.get(match[1][0], chr(int(match[1][1:], 16)) if match[1][0] == "x" else "")
        yield verdict, name, re.sub(r"\\(x..|.)", unescape, text).encode("latin-1")


class Backend:
    """Records requests, leniently read, and answers each."""

    def __init__(self):
        self.seen = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self.serve, args=(connection.makefile("rwb"),), daemon=True).start()

    def serve(self, stream):
        try:
            while first := stream.readline():
                fields = {}
                while (line := stream.readline()) not in (b"\r\n", b"\n", b""):
                    name, _, value = line.partition(b":")
                    fields[name.strip().lower()] = value.strip().lower()
                if b"chunked" in fields.get(b"transfer-encoding", b""):
                    while line := stream.readline():
                        size = int(line.split(b";")[0], 16)
                        if size == 0:
                            break
                        stream.read(size + 2)
                    if not line:
                        return  # it broke off: no request
                    while stream.readline() not in (b"\r\n", b"\n", b""):
                        pass
                else:
                    length = int(fields.get(b"content-length", b"0"))
                    if len(stream.read(length)) < length:
                        return
                if b"/v2/health" not in first:
                    self.seen.append(first)
                stream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                stream.flush()
        except ValueError:
            self.seen.append(b"nonsense")
        except OSError:
            pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def verdict(port, backend, request, meant):
    backend.seen.clear()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(0.5)
        answer = b""
        try:
            client.sendall(request)
            while part := client.recv(65536):
                answer += part
        except OSError:
            pass
    statuses = re.findall(rb"HTTP/1\.[01] (\d\d\d)", answer)
    count = len(backend.seen)
    if count == 0:
        return f"{statuses[0].decode()}" if statuses else "closed"
    if b"nonsense" in backend.seen:
        return "**passed, and the backend cannot read it**"
    return "passed" if count == meant else f"**{count} requests**"


def start(arguments, ports):
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for port in ports:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.01)
    return process


def main():
    backends = {proxy: Backend() for proxy in ["switchback", "nginx", "haproxy"]}
    folder = tempfile.mkdtemp()
    ports = {name: free_port() for name in ["switchback", "admin", "nginx", "haproxy"]}
    write = lambda name, text: open(os.path.join(folder, name), "w").write(text) and os.path.join(folder, name)
    toml = write("switchback.toml", f"""
[listen]
traffic = "127.0.0.1:{ports['switchback']}"
admin = "127.0.0.1:{ports['admin']}"
[state]
data_dir = "{folder}/data"
[[route]]
name = "search"
[route.pools.blue]
endpoints = ["http://127.0.0.1:{backends['switchback'].port}"]
""")
    conf = write("nginx.conf", f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{}}
http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream backend {{ server 127.0.0.1:{backends['nginx'].port}; keepalive 8; }}
  server {{ listen 127.0.0.1:{ports['nginx']};
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_request_buffering off; }} }} }}
""")
    cfg = write("haproxy.cfg", f"""
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend in
  bind 127.0.0.1:{ports['haproxy']}
  default_backend out
backend out
  server one 127.0.0.1:{backends['haproxy'].port}
""")
    started = [
        start([BINARY, "serve", "--config", toml], [ports["switchback"]]),
        start(["nginx", "-c", conf, "-p", folder], [ports["nginx"]]),
        start(["haproxy", "-f", cfg], [ports["haproxy"]]),
    ]
    first_line = lambda arguments: subprocess.run(arguments, capture_output=True, text=True)
    nginx = re.search(r"nginx/([\d.]+)", first_line(["nginx", "-v"]).stderr)[1]
    haproxy = re.search(r"version ([\d.]+)", first_line(["haproxy", "-v"]).stdout)[1]
    lines = [
        "# Requests that could be read in two ways, at three proxies",
        "",
        f"`tests/smuggling/verdicts.py`, Switchback against nginx {nginx} and HAProxy {haproxy} with their defaults. A number is the status that the client gets when",
        "no request reaches the backend, `passed` says that the backend read what was meant. The backend reads leniently: a bare LF ends a line, and chunked",
        "wins over a length. In bold: another number of requests than was meant.",
        "",
        "| request | Switchback | nginx | HAProxy |",
        "|---|---|---|---|",
    ]
    try:
        for expected, name, request in cases():
            meant = int(expected.split()[1]) if expected.startswith("passed") else 1
            found = [verdict(ports[proxy], backend, request, meant) for proxy, backend in backends.items()]
            lines.append(f"| {name} | {' | '.join(found)} |")
    finally:
        for process in started:
            process.terminate()
    text = "\n".join(lines) + "\n"
    print(text)
    if len(sys.argv) > 1:
        open(sys.argv[1], "w").write(text)


main()
