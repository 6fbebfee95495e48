#!/usr/bin/python3
"""Listeners, roles and frames of the Python package, by themselves. Quick."""

import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
import unittest.mock

import harness  # noqa: F401  pylint: disable=unused-import

from thrift.transport.TTransport import TTransportException
from troth.security import (
    Roles, Security, SecurityError, SecurityOptions, TlsContext, TlsFiles)
from troth.transport import MAX_FRAME_BYTES, FramedSocket, Listener, connect


class Echo:
    """Processor: reads one byte of a frame, answers with a frame."""

    def process(self, protocol, answer):
        protocol.trans.read(1)
        answer.write(b"yes")
        answer.flush()


class Doors(unittest.TestCase):
    """A listener with TLS whose callers want more than their share."""

    @classmethod
    def setUpClass(cls):
        cls.made = tempfile.TemporaryDirectory(prefix="troth-rules-")
        cls.addClassCleanup(cls.made.cleanup)
        subprocess.run([harness.ROOT / "scripts/dev-certs", cls.made.name, "--participant", "east"],
                       check=True, capture_output=True)

    def files(self, name):
        at = f"{self.made.name}/{name}"
        return TlsFiles(f"{at}.pem", f"{at}.key", f"{self.made.name}/ca.pem")

    def setUp(self):
        security = Security(SecurityOptions(self.files("east"), f"{self.made.name}/roles"))
        self.listener = Listener("test", "127.0.0.1", 0, Echo(), max_connections=12,
                                 security=security)
        self.listener.start()
        self.addCleanup(self.listener.stop, 0)
        self.tls = TlsContext(self.files("teller"))

    def ask(self):
        """A connection that was answered."""
        transport = connect("127.0.0.1", self.listener.port, 3, self.tls)
        self.addCleanup(transport.close)
        transport.set_timeout(3)
        transport.write(b"x")
        transport.flush()
        transport.receive_frame()
        self.assertEqual(transport.read(3), b"yes")
        return transport

    def test_who_never_shakes_hands_keeps_nobody_out(self):
        """Once a dozen of them held all places for the five seconds of a handshake."""
        silent = [socket.create_connection(("127.0.0.1", self.listener.port)) for _ in range(16)]
        for sock in silent:
            self.addCleanup(sock.close)
        self.ask()
        silent[0].settimeout(3)
        self.assertEqual(silent[0].recv(1), b"")  # the oldest was broken off

    def test_one_certificate_has_its_share(self):
        held = [self.ask() for _ in range(9)]
        with self.assertRaises((TTransportException, OSError)):
            self.ask()
        admin = TlsContext(self.files("admin"))
        self.tls, teller = admin, self.tls
        self.ask()  # another's
        self.tls = teller
        held[0].close()
        for _ in range(100):
            try:
                self.ask()
                return
            except (TTransportException, OSError):
                pass  # its end is on its way
        self.fail("the place of a connection that ended was not given again")

    def test_one_caller_leaves_a_place(self):
        """Once a certificate's share and those without one were all the places there are."""
        for _ in range(9):
            self.ask()
        self.tls = TlsContext(self.files("admin"))
        for _ in range(2):
            self.ask()
        for _ in range(16):
            self.addCleanup(socket.create_connection(("127.0.0.1", self.listener.port)).close)
        self.ask()
        with self.assertRaises((TTransportException, OSError)):
            self.ask()  # that was the last one

    def test_files_are_read_again_after_a_want_of_descriptors(self):
        """Files that came when none was to be had were taken for read, until they changed again."""
        at = self.made.name
        for name in ("roles", "teller.pem", "teller.key"):
            with open(f"{at}/{name}", "rb") as old, open(f"{at}/late-{name}", "wb") as new:
                new.write(old.read())
            os.chmod(f"{at}/late-{name}", 0o600)
        context = TlsContext(self.files("late-teller"))
        before = context.load()
        security = Security(SecurityOptions(self.files("east"), f"{at}/late-roles"))
        with open(f"{at}/late-roles", "w", encoding="utf-8") as file:
            file.write("nobody client *\n")
        os.utime(f"{at}/late-teller.pem")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            with self.assertLogs("troth", "ERROR"):
                self.assertIs(context.load(), before)
            security._look_at = 0  # pylint: disable=protected-access
            with self.assertLogs("troth", "ERROR"):
                self.assertIsNone(security.why_not("teller", "client", "east"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertIsNot(context.load(), before)
        security._look_at = 0  # pylint: disable=protected-access
        self.assertIsNotNone(security.why_not("teller", "client", "east"))

    def test_a_key_whose_mode_was_mended_is_read(self):
        at = self.made.name
        for part in ("pem", "key"):
            os.link(f"{at}/admin.{part}", f"{at}/renewed.{part}")
        context = TlsContext(self.files("renewed"))
        before = context.load()
        fresh = f"{at}/fresh.key"
        with open(f"{at}/admin.key", encoding="utf-8") as key, \
                open(fresh, "w", encoding="utf-8") as copy:
            copy.write(key.read())
        os.chmod(fresh, 0o644)
        os.rename(fresh, f"{at}/renewed.key")
        with self.assertLogs("troth", "ERROR") as said:
            self.assertIs(context.load(), before)
        self.assertIn("chmod 600", said.output[0])
        os.chmod(f"{at}/renewed.key", 0o600)
        self.assertIsNot(context.load(), before)

    def test_a_common_name_is_no_host(self):
        """A certificate without alternative names, of somebody who is called `localhost`."""
        at = self.made.name
        subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-keyout",
                        f"{at}/nameless.key", "-out", f"{at}/nameless.csr"], check=True,
                       capture_output=True)
        subprocess.run(["openssl", "x509", "-req", "-in", f"{at}/nameless.csr", "-CA",
                        f"{at}/ca.pem", "-CAkey", f"{at}/ca.key", "-set_serial", "77", "-days", "1",
                        "-out", f"{at}/nameless.pem"], check=True, capture_output=True)
        os.chmod(f"{at}/nameless.key", 0o600)
        listener = Listener("test", "127.0.0.1", 0, Echo(), security=Security(
            SecurityOptions(self.files("nameless"), f"{at}/roles")))
        listener.start()
        self.addCleanup(listener.stop, 0)
        with self.assertRaisesRegex(OSError, "(?i)hostname mismatch"):
            connect("localhost", listener.port, 3, self.tls)

    def test_without_a_thread_the_listener_goes_on(self):
        with unittest.mock.patch("threading.Thread.start", side_effect=RuntimeError("no thread")):
            refused = socket.create_connection(("127.0.0.1", self.listener.port))
            self.addCleanup(refused.close)
            refused.settimeout(3)
            self.assertEqual(refused.recv(1), b"")
        self.ask()


class RolesOfFiles(unittest.TestCase):
    def test_an_empty_file_is_none(self):
        for text in ("", "\n", "# x administrator\n"):
            with self.assertRaisesRegex(SecurityError, "nobody"):
                Roles(text)


class Frames(unittest.TestCase):
    def setUp(self):
        self.listener = Listener("test", "127.0.0.1", 0, Echo(), max_connections=2, idle_ms=300)
        self.listener.start()
        self.addCleanup(self.listener.stop, 0)

    def dial(self):
        transport = connect("127.0.0.1", self.listener.port, 2)
        transport.set_timeout(5)
        self.addCleanup(transport.close)
        return transport

    def ask(self, transport):
        transport.write(b"x")
        transport.flush()
        transport.receive_frame()
        return transport.read(3)

    def ends(self, transport):
        with self.assertRaises(TTransportException) as caught:
            transport.receive_frame()
        self.assertNotEqual(caught.exception.type, TTransportException.TIMED_OUT)

    def test_answers(self):
        self.assertEqual(self.ask(self.dial()), b"yes")

    def test_large_and_negative_frames_close_the_connection(self):
        for size in (MAX_FRAME_BYTES + 1, -1, 0):
            transport = self.dial()
            transport._socket.sendall(struct.pack(">i", size))
            self.ends(transport)

    def test_large_frames_are_not_sent(self):
        transport = self.dial()
        self.assertRaises(TTransportException, transport.write, b"x" * (MAX_FRAME_BYTES + 1))

    def test_idle_and_half_open_connections_end(self):
        self.ends(self.dial())
        transport = self.dial()
        transport._socket.sendall(b"\0\0")
        self.ends(transport)

    def test_connections_beyond_the_limit_wait(self):
        first, second, third = self.dial(), self.dial(), self.dial()
        self.ask(first), self.ask(second)
        third.write(b"x")
        third.flush()
        third.set_timeout(0.05)
        self.assertRaises(TTransportException, third.receive_frame)
        first.close()
        third.set_timeout(5)
        third.receive_frame()

    def test_a_message_ends_with_its_frame(self):
        ours, theirs = socket.socketpair()
        transport = FramedSocket(ours)
        theirs.sendall(struct.pack(">i", 1) + b"a" + struct.pack(">i", 1) + b"b")
        transport.receive_frame()
        self.assertEqual(transport.read(1), b"a")
        self.assertRaises(TTransportException, transport.read, 1)
        ours.close(), theirs.close()

    def test_nested_garbage_does_not_end_the_process(self):
        """Deep nesting in an unknown field of a compact message; in a process of its own."""
        code = (
            "import harness, troth, socket, struct, sys\n"
            "from troth.transport import FramedSocket, protocol_on\n"
            "from troth.wire.participant import ParticipantPeer\n"
            "a, b = socket.socketpair()\n"
            "body = bytes([0x82, 0x21, 1]) + b'\\x05hello' + b'\\x9c' + b'\\x1c' * 900000\n"
            "import threading\n"
            "threading.Thread(target=lambda: b.sendall(struct.pack('>i', len(body)) + body)).start()\n"
            "t = FramedSocket(a); t.receive_frame(); p = protocol_on(t)\n"
            "try:\n"
            "    ParticipantPeer.Processor(object()).process(p, p)\n"
            "except Exception as error:\n"
            "    print('survived', type(error).__name__)\n")
        done = subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(__file__) or ".",
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr[-500:])
        self.assertIn("survived", done.stdout)


if __name__ == "__main__":
    unittest.main()
