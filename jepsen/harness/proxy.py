"""Stands between a participant and its PostgreSQL server, and cuts exactly at a message.

    proxy.py --listen HOST:PORT --to HOST:PORT --control SOCKET

Reads the frames of PostgreSQL's protocol 3.0, unencrypted. A controller connects to SOCKET and
writes `POINT ACTION` on a line: POINT is prepare, prepare-answer, commit or commit-answer; ACTION
is cut (the message is lost, and the connection), hold:MS (the message waits) or hold (it waits until
the controller goes away). It holds for the next such message only; then `done` is written back.
"""

import argparse
import asyncio
import os
import struct

# What marks the message: the direction, the types of frame, the words in it.
POINTS = {
    'prepare': ('up', b'QP', b'PREPARE TRANSACTION'),
    'prepare-answer': ('down', b'C', b'PREPARE TRANSACTION'),
    'commit': ('up', b'QP', b'COMMIT PREPARED'),
    'commit-answer': ('down', b'C', b'COMMIT PREPARED'),
}


class Order:
    """What is to be done at the next message of a point."""

    def __init__(self, point, action):
        self.direction, self.types, self.words = POINTS[point]
        self.action = action
        self.done = asyncio.get_running_loop().create_future()
        self.let_go = asyncio.Event()


class Proxy:
    """All connections, and the one order that stands."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.order = None

    async def serve(self, reader, writer):
        try:
            server_reader, server_writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.close()
            return
        pair = (writer, server_writer)
        await asyncio.gather(self._pump(reader, server_writer, 'up', pair),
                             self._pump(server_reader, writer, 'down', pair))

    async def _pump(self, reader, writer, direction, pair):
        """Passes on what comes; frames are looked at only while an order stands."""
        rest, started = b'', direction == 'down'
        try:
            while data := await reader.read(65536):
                rest += data
                if not started:  # The first message of a client has no type.
                    if len(rest) < 4 or len(rest) < struct.unpack('>I', rest[:4])[0]:
                        continue
                    length = struct.unpack('>I', rest[:4])[0]
                    writer.write(rest[:length])
                    rest, started = rest[length:], True
                rest = await self._frames(rest, writer, direction)
                if rest is None:
                    break
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        for one in pair:
            one.close()

    async def _frames(self, rest, writer, direction):
        """Passes whole frames on; returns what is left, None after a cut."""
        at = 0
        while len(rest) - at >= 5:
            length = 1 + struct.unpack('>I', rest[at + 1:at + 5])[0]
            if len(rest) - at < length:
                break
            order = self.order
            if (order and order.direction == direction and rest[at] in order.types
                    and order.words in rest[at:at + length]):
                writer.write(rest[:at])
                rest, at = rest[at:], 0
                self.order = None
                order.done.set_result(True)
                if order.action == 'cut':
                    return None
                await writer.drain()
                if order.action == 'hold':
                    await order.let_go.wait()
                else:
                    await asyncio.sleep(int(order.action.partition(':')[2]) / 1000)
            at += length
        writer.write(rest[:at])
        return rest[at:]

    async def control(self, reader, writer):
        order = None
        try:
            while line := await reader.readline():
                order = self.order = Order(*line.decode().split())
                asked = asyncio.ensure_future(reader.read(1))  # The controller went away.
                await asyncio.wait({order.done, asked}, return_when=asyncio.FIRST_COMPLETED)
                if not order.done.done():
                    self.order = None
                    break
                writer.write(b'done\n')
                await writer.drain()
                await asked
                break
        except (OSError, ValueError, KeyError):
            pass
        if order:
            order.let_go.set()
        writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    for name in ('--listen', '--to', '--control'):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    host, port = options.to.rsplit(':', 1)
    proxy = Proxy(host, int(port))
    host, port = options.listen.rsplit(':', 1)
    server = await asyncio.start_server(proxy.serve, host, int(port))
    if os.path.exists(options.control):
        os.unlink(options.control)
    control = await asyncio.start_unix_server(proxy.control, options.control)
    async with server, control:
        await asyncio.gather(server.serve_forever(), control.serve_forever())


if __name__ == '__main__':
    asyncio.run(main())
