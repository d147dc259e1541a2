"""An SMTP or LMTP server that takes mail and can misbehave, for tests of the way out.

    with Sink(port, features=("PIPELINING",), tls=(cert, key), replies={"RCPT": answer}) as sink: ...

replies: per verb (GREETING, EHLO, MAIL, RCPT, DATA, END, STARTTLS, AUTH) a reply, a list of replies that are used up in
turn (the last stays), or a function of the argument (END: the recipients, with LMTP one each time). A reply is a text without CRLF, several lines as a list inside a
tuple, None for the usual one, or one of the words CLOSE (the connection ends), HANG (no answer ever).

A message is in messages before its sender hears that it was taken. record has all that was said, with time and connection:
(seconds since the epoch, "conn 3", "C:" or "S:", text), contents by length and digest of the body.
"""
import base64
import socket
import ssl
import threading
import time

from load import body_of, digest

CLOSE, HANG = "close", "hang"
USUAL = {"GREETING": "220 sink.test ESMTP", "HELO": "250 sink.test", "MAIL": "250 2.1.0 ok", "RCPT": "250 2.1.5 ok",
         "DATA": "354 go on", "END": "250 2.0.0 taken", "RSET": "250 2.0.0 ok", "NOOP": "250 2.0.0 ok",
         "STARTTLS": "220 2.0.0 go", "QUIT": "221 2.0.0 bye", "AUTH": "235 2.7.0 hello"}


class Message:
    def __init__(self, sender):
        self.sender, self.recipients, self.parameters, self.content, self.tls, self.user = sender, [], [], b"", None, None


class Sink:
    def __init__(self, port, host="127.0.0.1", features=("PIPELINING", "8BITMIME", "SIZE 0", "ENHANCEDSTATUSCODES"),
                 tls=None, wrapper=False, replies=None, lmtp=False):
        self.features, self.tls, self.wrapper, self.lmtp = features, tls, wrapper, lmtp
        self.replies, self.context = dict(replies or {}), None
        self.messages, self.commands, self.connections, self.peers, self.problems = [], [], 0, [], []
        self.record = []
        self.lock = threading.Condition()
        self.listener = socket.create_server((host, port), backlog=100,
                                             family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.open, self.unanswered = set(), set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, peer = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                number = self.connections
                self.peers.append(peer[0])
                self.open.add(client)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.note(number, "from", f"port {peer[1]}")
            threading.Thread(target=self.serve, args=(client, number), daemon=True).start()

    def reply(self, verb, argument=""):
        with self.lock:
            what = self.replies.get(verb)
            if isinstance(what, list):
                what = what.pop(0) if len(what) > 1 else what[0]
        if callable(what):  # which may take its time
            what = what(argument)
        return USUAL[verb] if what is None else what

    def note(self, number, who, text):
        self.record.append((time.time(), f"conn {number}", who, text))

    def serve(self, client, number):
        try:
            Session(self, client, number).run()
        except (OSError, ValueError) as e:
            with self.lock:
                self.problems.append(repr(e))
        finally:
            self.note(number, "end", "")
            with self.lock:
                self.open.discard(client)
            client.close()

    def wait(self, count=1, seconds=30):
        """The messages, as soon as there are so many."""
        with self.lock:
            if not self.lock.wait_for(lambda: len(self.messages) >= count, seconds):
                raise AssertionError(f"{len(self.messages)} of {count} messages came; commands: {self.commands[-20:]}")
            return list(self.messages)

    def close(self):
        """What wait() has given is answered before."""
        with self.lock:
            self.lock.wait_for(lambda: not self.unanswered, 10)
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in list(self.open):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class NextHop(Sink):
    """Answers RCPT by recipient: answers[address], or usual; takes delays[address] seconds after the dot, or delay."""

    def __init__(self, port):
        super().__init__(port, features=("8BITMIME", "PIPELINING", "SMTPUTF8"), replies={"RCPT": self.rcpt, "END": self.end})
        self.answers, self.usual, self.delays, self.delay = {}, None, {}, 0

    def rcpt(self, argument):
        return self.answers.get(argument[argument.index("<") + 1:argument.index(">")], self.usual)

    def end(self, recipients):
        time.sleep(max(self.delays.get(r, self.delay) for r in recipients.split()))


class Session:
    def __init__(self, sink, client, number):
        self.sink, self.client, self.number, self.message, self.user = sink, client, number, None, None
        self.protocol = None
        if sink.wrapper:
            self.start_tls()
        self.input = self.client.makefile("rb")

    def start_tls(self):
        if not self.sink.context:
            self.sink.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.sink.context.load_cert_chain(*self.sink.tls)
        self.client = self.sink.context.wrap_socket(self.client, server_side=True)
        self.input = self.client.makefile("rb")
        self.protocol = self.client.version()

    def write(self, *lines):
        self.sink.note(self.number, "S:", " / ".join(lines))
        self.client.sendall("".join(line + "\r\n" for line in lines).encode())

    def say(self, verb, argument="", before=lambda said: None):
        """The last line of the reply, False: the session is over. before: called with that line before it is sent."""
        what = self.sink.reply(verb, argument)
        if what == CLOSE:
            return False
        if what == HANG:
            self.input.read()
            return False
        lines = list(what) if isinstance(what, tuple) else [what]
        before(lines[-1])
        self.write(*lines)
        return lines[-1]

    def run(self):
        if not self.say("GREETING"):
            return
        while True:
            line = self.input.readline()
            if not line:
                return
            text = line.decode(errors="replace").rstrip("\r\n")
            self.sink.note(self.number, "C:", text)
            with self.sink.lock:
                self.sink.commands.append(text)
            if not line.endswith(b"\r\n"):
                raise ValueError(f"a command without CRLF: {line}")
            verb, _, argument = text.partition(" ")
            if not getattr(self, "do_" + verb.upper(), self.unknown)(argument):
                return

    def unknown(self, _):
        self.write("500 5.5.1 what")
        return True

    def do_EHLO(self, argument):
        if "EHLO" in self.sink.replies:
            return self.say("EHLO", argument)
        features = [f for f in self.sink.features if not (f == "STARTTLS" and self.protocol)]
        lines = ["sink.test", *features]
        self.write(*(f"250{'-' if i + 1 < len(lines) else ' '}{line}" for i, line in enumerate(lines)))
        return True

    do_LHLO = do_EHLO

    def do_HELO(self, argument):
        return self.say("HELO", argument)

    def do_STARTTLS(self, _):
        said = self.say("STARTTLS")
        if said and said.startswith("220"):
            self.start_tls()
        return said

    def do_AUTH(self, argument):
        words = argument.split()
        if len(words) > 1:
            self.user = base64.b64decode(words[1]).decode().split("\0")[1:]
        return self.say("AUTH", argument)

    def do_MAIL(self, argument):
        said = self.say("MAIL", argument)
        if said and said.startswith("250"):
            path, _, parameters = argument.partition(" ")
            self.message = Message(path[len("FROM:"):].strip("<>"))
            self.message.parameters.append(parameters)
        return said

    def do_RCPT(self, argument):
        if not self.message:
            self.write("503 5.5.1 MAIL first")
            return True
        said = self.say("RCPT", argument)
        if said and said.startswith("250"):
            path, _, parameters = argument.partition(" ")
            self.message.recipients.append(path[len("TO:"):].strip("<>"))
            self.message.parameters.append(parameters)
        return said

    def do_DATA(self, _):
        if not self.message or not self.message.recipients:
            self.write("503 5.5.1 no recipients")
            return True
        said = self.say("DATA")
        if not said or not said.startswith("354"):
            return said
        lines = []
        for line in self.input:
            if line == b".\r\n":
                break
            if not line.endswith(b"\r\n"):
                raise ValueError(f"a line without CRLF: {line[:80]}")
            lines.append(line[1:] if line.startswith(b".") else line)
        else:
            self.sink.note(self.number, "C:", f"{len(lines)} lines of a content without an end")
            return False
        message, self.message = self.message, None
        message.content, message.tls, message.user = b"".join(lines), self.protocol, self.user
        self.sink.note(self.number, "C:", f"content of {len(message.content)} bytes, body {digest(body_of(message.content))}")
        replies = message.recipients if self.sink.lmtp else [" ".join(message.recipients)]
        for n, recipient in enumerate(replies, 1):
            try:
                if not self.say("END", recipient, lambda said: self.take(message, said) if n == len(replies) else None):
                    return False
            finally:
                self.answered(message)
        return True

    def take(self, message, said):
        if self.sink.lmtp or said.startswith("250"):
            with self.sink.lock:
                self.sink.messages.append(message)
                self.sink.unanswered.add(message)
                self.sink.lock.notify_all()

    def answered(self, message):
        with self.sink.lock:
            self.sink.unanswered.discard(message)
            self.sink.lock.notify_all()

    def do_RSET(self, _):
        self.message = None
        return self.say("RSET")

    def do_NOOP(self, _):
        return self.say("NOOP")

    def do_QUIT(self, _):
        self.say("QUIT")
        return False
