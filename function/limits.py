"""What one connection may cost the function: bytes and seconds. docs/operations.md describes them for operators."""

KEEP_ALIVE_SECONDS = 75
"""Seconds after which an idle connection is closed: longer than the idle timeout of load balancers (60 s), so that they
do not send a request on a connection that is being closed."""
HEAD_BYTES = 64 * 1024
"""Largest head of a request, in bytes: request line and headers. Also the largest trailer of a chunked body."""
HEAD_SECONDS = 10.0
"""Seconds in which a new connection has to send its first byte, and in which a begun head has to be complete."""
PIPELINED = 8
"""Requests that one connection may have sent before the first of them is answered, besides that one (RFC 9112, section
9.3.2). Clients and proxies in use today send one after the other; each that waits costs some kilobytes."""
BODY_SECONDS = 30.0
"""A request is answered with 408 when its body makes no progress for this many seconds."""
BODIES_BYTES = 200_000_000
"""Bytes of request bodies that a process has in memory at once, with images decoded: with what else it needs it stays
below the 512 MiB that infra/kubernetes allows it. These are ten of the largest images, or 50 of the largest that the
Python clients send in a body; who sends more at once is told to try again."""
BODY_BYTES = 100_000_000
"""The share of them that one API key, or one address without a key, may have: half, so that no client takes all."""
BODY_PIECE = 256 * 1024
"""Bytes of a body that are collected before a thread takes them apart."""
LINGER_BYTES = 32 * 1024 * 1024
"""Bytes that are read and discarded after an answer that comes before the end of its request. If the socket was closed
with unread data, TCP would reset the connection, and the client could lose the answer (RFC 9112, section 9.6)."""
LINGER_SECONDS = 10.0
"""Seconds for which they are read."""
STALLED_SECONDS = 30.0
"""A connection whose client reads nothing for this many seconds is closed. A browser reconnects and resumes."""
STOP_SECONDS = 2
"""Seconds that open requests get when the process stops; then they are interrupted."""
STREAMS_PER_JOB = 100
"""Event streams of one job that a process keeps open: a page in several windows, and people who watch together."""
STREAMS_PER_KEY = 500
"""Event streams of one API key. Its program may follow each of its jobs; there are 2,000 for four such keys."""
STREAMS_PER_ADDRESS = 300
"""Event streams of one address, or of one IPv6 network (/64), without an API key: in an office behind one address a
hundred browsers can open the three streams that `upres.js` uses."""
DESCRIPTORS_KEPT = 128
"""File descriptors that event streams leave to probes and short requests."""
