"""A SCRAM client (RFC 5802, 7677, 5929) for tests, with every message in the caller's hand."""
import base64
import hashlib
import hmac
import os
import ssl


def _xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


class Scram:
    """binding: None (the client cannot bind: "n"), "y" (it could, but saw no -PLUS), or (type, data)."""

    def __init__(self, user, password, hash_name="sha256", binding=None, authzid=""):
        self.user, self.password, self.hash = user, password.encode(), hash_name
        if binding is None:
            self.gs2, self.data = "n,", b""
        elif binding == "y":
            self.gs2, self.data = "y,", b""
        else:
            self.gs2, self.data = f"p={binding[0]},", binding[1]
        self.gs2 += (f"a={authzid}" if authzid else "") + ","
        self.nonce = base64.b64encode(os.urandom(15)).decode()
        self.checked = False  # the server has shown that it knows the key
        self.bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={self.nonce}"

    def first(self):
        return (self.gs2 + self.bare).encode()

    def final(self, server_first):
        text = server_first.decode()
        fields = dict(f.split("=", 1) for f in text.split(","))
        assert fields["r"].startswith(self.nonce) and len(fields["r"]) > len(self.nonce) + 8
        self.rounds = int(fields["i"])
        self.salt = base64.b64decode(fields["s"])
        salted = hashlib.pbkdf2_hmac(self.hash, self.password, self.salt, self.rounds)
        client_key = hmac.digest(salted, b"Client Key", self.hash)
        stored = hashlib.new(self.hash, client_key).digest()
        bound = base64.b64encode(self.gs2.encode() + self.data).decode()
        without = f"c={bound},r={fields['r']}"
        signed = f"{self.bare},{text},{without}".encode()
        proof = _xor(client_key, hmac.digest(stored, signed, self.hash))
        self.signature = hmac.digest(hmac.digest(salted, b"Server Key", self.hash), signed, self.hash)
        return f"{without},p={base64.b64encode(proof).decode()}".encode()

    def check(self, server_final):
        assert server_final == b"v=" + base64.b64encode(self.signature), server_final
        self.checked = True


def end_point(sock):
    """tls-server-end-point of a certificate that is signed with SHA-256."""
    return "tls-server-end-point", hashlib.sha256(sock.getpeercert(True)).digest()


def client_context(ca):
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    return context
