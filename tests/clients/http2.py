"""A plain HTTP/2 client: it sends what it is told, and resets a stream when it is told."""

import socket

import h2.connection
import h2.events


class Connection:
    """One h2c connection."""

    def __init__(self, address):
        self.authority = address
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.h2 = h2.connection.H2Connection()
        self.said, self.ended = {}, set()
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def post(self, path, body, ends=True, **headers):
        """Sends a request; says its stream. A header's name is written with _ for -."""
        stream = self.h2.get_next_available_stream_id()
        head = {":method": "POST", ":path": path, ":scheme": "http", ":authority": self.authority}
        head |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.h2.send_headers(stream, list(head.items()))
        self.send(stream, body, ends)
        return stream

    def send(self, stream, body, ends=True):
        self.h2.send_data(stream, body, end_stream=ends)
        self.flush()

    def reset(self, stream):
        self.h2.reset_stream(stream, error_code=8)  # CANCEL
        self.flush()

    def answer(self, stream):
        """Headers and trailers of a stream, once it has ended."""
        while stream not in self.ended:
            data = self.socket.recv(65536)
            assert data, f"the connection closed before stream {stream} ended: {self.said.get(stream)}"
            for event in self.h2.receive_data(data):
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    said = {name.decode(): value.decode() for name, value in event.headers}
                    self.said[event.stream_id] = self.said.get(event.stream_id, {}) | said
                if isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    self.ended.add(event.stream_id)
            self.flush()
        return self.said.pop(stream)

    def close(self):
        self.socket.close()


def grpc_message(message):
    """A protobuf message as gRPC frames it."""
    data = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data
