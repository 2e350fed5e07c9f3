"""A defence on a live wire: edge, cloud and an interceptor between them, over TCP.

By asyncio's streams and the standard library's ssl. A messaging library would carry the releases in frames of its own
protocol, with handshakes and encryption of its own kind (ZMTP and CURVE, for one): an interceptor would have to be a
peer that both sides name, rather than a wire that both sides know nothing of, and TLS would be out of reach. What is
left to write here is one header.
"""
