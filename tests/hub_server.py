"""A stand-in for Hugging Face: repositories in memory, over HTTP.

As much of its API as an upload of a folder and a download of all files use.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import threading

COMMIT = "1" * 40


@contextlib.contextmanager
def running():
  """Yields (address, files by repository)."""
  repos: dict[str, dict[str, bytes]] = {}

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
      pass

    def answer(self, content=b"", code=200, **headers):
      if not isinstance(content, bytes):
        content = json.dumps(content).encode()
        headers["Content-Type"] = "application/json"
      self.send_response(code)
      for name, value in headers.items():
        self.send_header(name.replace("_", "-"), value)
      self.send_header("Content-Length", str(len(content)))
      self.end_headers()
      if self.command != "HEAD":
        self.wfile.write(content)

    def do_POST(self):
      body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
      path = self.path.split("?")[0]
      if path == "/api/repos/create":
        fields = json.loads(body)
        name = f"{fields.get('organization', 'me')}/{fields['name']}"
        repos.setdefault(name, {})
        return self.answer({"url": f"{address}/{name}", "name": name})
      if path == "/api/validate-yaml":
        return self.answer({"errors": [], "warnings": []})
      if path.endswith("/preupload/main"):
        files = json.loads(body)["files"]
        return self.answer(
          {
            "files": [
              {
                "path": f["path"],
                "uploadMode": "regular",
                "shouldIgnore": False,
              }
              for f in files
            ]
          }
        )
      if path.endswith("/commit/main"):
        name = "/".join(path.split("/")[3:5])
        repo = repos[name]
        for line in body.decode().splitlines():
          entry = json.loads(line)
          if entry["key"] == "file":
            value = entry["value"]
            repo[value["path"]] = base64.b64decode(value["content"])
        return self.answer(
          {
            "success": True,
            "commitOid": COMMIT,
            "commitUrl": f"{address}/{name}/commit/{COMMIT}",
          }
        )
      return self.answer({"error": f"no {path}"}, 404)

    def do_GET(self):
      path = self.path.split("?")[0]
      parts = path.strip("/").split("/")
      if path.startswith("/api/models/"):
        name = "/".join(parts[2:4])
        if name not in repos:
          return self.missing()
        files = [{"rfilename": n} for n in repos[name]]
        if "/tree/" in path:
          return self.answer(
            [
              {
                "type": "file",
                "path": n,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
              }
              for n, content in repos[name].items()
            ]
          )
        return self.answer(
          {"id": name, "modelId": name, "sha": COMMIT, "siblings": files}
        )
      if len(parts) > 4 and parts[2] == "resolve":
        content = repos.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
        if content is None:
          return self.missing()
        tag = hashlib.sha1(content).hexdigest()
        return self.answer(content, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
      return self.answer({"error": f"no {path}"}, 404)

    do_HEAD = do_GET

    def missing(self):
      self.answer(
        {"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound"
      )

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  address = f"http://127.0.0.1:{server.server_port}"
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  try:
    yield address, repos
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
