"""A scripted SMTP server for tests: keeps what it gets, answers as it is told.

    sink = SmtpSink(port)            # threads; close() ends it
    sink.replies["bad@out.test"] = "550 5.1.1 no such user"     # for RCPT
    sink.data_reply = "451 4.0.0 later"                          # after the dot
    sink.messages -> [(sender line, [rcpt lines], content)]
"""
import socket
import threading
import time


class SmtpSink:
    def __init__(self, port, extensions=("8BITMIME", "PIPELINING", "SMTPUTF8")):
        self.extensions, self.replies, self.data_reply = extensions, {}, "250 2.0.0 taken"
        self.rcpt_default, self.delay, self.messages, self.connections = "250 2.1.5 ok", 0, [], 0
        self.delays = {}  # after the dot, by recipient; delay is for all others
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=200)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.session, args=(s,), daemon=True).start()

    def session(self, s):
        f = s.makefile("rwb")
        try:
            self.talk(f, lambda line: (f.write(line.encode() + b"\r\n"), f.flush()))
        except (OSError, ValueError):
            pass
        finally:
            s.close()

    def talk(self, f, say):
        sender, rcpts = None, []
        say("220 sink ESMTP")
        for raw in f:
            line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
            verb = line.upper()
            if verb.startswith("EHLO"):
                for e in self.extensions:
                    say(f"250-{e}")
                say("250 sink")
            elif verb.startswith("MAIL"):
                sender, rcpts = line, []
                say("250 ok")
            elif verb.startswith("RCPT"):
                address = line[line.index("<") + 1:line.index(">")]
                reply = self.replies.get(address, self.rcpt_default)
                if reply.startswith("2"):
                    rcpts.append(line)
                say(reply)
            elif verb == "DATA":
                if not rcpts:
                    say("554 no valid recipients")
                    continue
                say("354 go")
                content, whole = b"", False
                for part in f:
                    if part == b".\r\n":
                        whole = True
                        break
                    content += part[1:] if part.startswith(b".") else part
                if not whole:
                    return
                time.sleep(max([self.delays.get(line[line.index("<") + 1:line.index(">")], self.delay) for line in rcpts]))
                if self.data_reply.startswith("2"):
                    with self.lock:
                        self.messages.append((sender, rcpts, content))
                say(self.data_reply)
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")

    def wait(self, count=1, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(self.messages) < count:
            time.sleep(0.02)
        assert len(self.messages) >= count, f"{len(self.messages)} of {count} messages came"
        return self.messages

    def close(self):
        """shutdown, for close alone leaves a port that listens until somebody has come."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
