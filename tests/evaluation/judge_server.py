"""A judge for tests: a server on this machine that answers as an OpenAI-compatible endpoint, rightly or wrongly."""

import contextlib
import http.server
import json
import threading


def replied(text):
    """The fields of a reply that says this."""
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


class JudgeServer:
    """Answers the n-th request with the n-th of `answers`, and the last one again and again.

    An answer is a text (what the judge says), fields, bytes, a number (a status), or a function of the handler.
    `asked` are the requests: path, headers and fields.
    """

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []
        self.stop = threading.Event()  # ends answers that stall
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, dict(self.headers), json.loads(body)))
                answer = outer.answers[min(len(outer.asked), len(outer.answers)) - 1]
                with contextlib.suppress(OSError):  # the client may have gone
                    answer(self) if callable(answer) else send(self, answer)
                self.close_connection = True

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self):
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.http.shutdown()
        self.thread.join(60)
        self.http.server_close()


def send(handler, answer, status=200, length=None, **headers):
    if isinstance(answer, int):
        answer, status = b'{"error": {"message": "the reason"}}', answer
    if isinstance(answer, str):
        answer = replied(answer)
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)
