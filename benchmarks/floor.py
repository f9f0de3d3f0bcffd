"""What the kernel's part costs: a client that receives tokens and does nothing with them.

    python benchmarks/floor.py [STREAMS ...]

One epoll loop on the first core calls recvmsg (with kernel stamps) for every token of N streams at 66 tokens/s
and counts bytes; nothing is decoded, kept or stored. No Python client that stamps every token can be cheaper;
what oss-eval costs above it is its own. Compare with `side_by_side.py` run on the same machine. Linux only.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from limits import server

from oss_eval.probe import timestamps

TOKENS = 256
BODY = (
    b'{"messages":[{"role":"user","content":"Count."}],"max_tokens":%d,"ignore_eos":true,"stream":true}' % TOKENS
)
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def main(streams: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        process, url = server(Path(name), "sim://paced", max(os.sched_getaffinity(0)))
        os.sched_setaffinity(0, {0})
        place = urlsplit(url)
        poll = select.epoll()
        sockets = {}
        for _ in range(streams):
            sock = socket.create_connection((place.hostname, place.port))
            timestamps.enable(sock)
            sock.setblocking(False)
            poll.register(sock.fileno(), select.EPOLLIN)
            sockets[sock.fileno()] = sock
        begun, reads, ended = time.process_time(), 0, 0
        for sock in sockets.values():
            sock.send(REQUEST)
        while ended < streams:
            for descriptor, _ in poll.poll():
                data, _, _, _ = sockets[descriptor].recvmsg(65536, 64)
                reads += 1
                ended += data.endswith(b"0\r\n\r\n")
        cost = (time.process_time() - begun) / (streams * TOKENS) * 1e6
        print(f"{streams} streams, {reads} reads: CPU {cost:.1f} us a token", flush=True)
        process.send_signal(signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    cores = os.sched_getaffinity(0)
    for streams in [int(word) for word in sys.argv[1:]] or [64, 256, 1024]:
        os.sched_setaffinity(0, cores)
        main(streams)
