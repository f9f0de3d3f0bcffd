"""A TLS proxy with an untrusted certificate."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile

CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgofjpbaMcowvmEWMZ
5+Zm8Nn5lR2egQqUWFVLgYUx/oqhRANCAARN1OEs+66t6GmW9iWg/KLuugzqWwkY
+xu3tGa+aaXk3/U7pQl+07W/nZA8RQ2LTjJx+y0PpY2jd3jiFBYHohhP
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBFDCBu6ADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9z
dDAeFw0yMDAxMDEwMDAwMDBaFw0yMDAxMDIwMDAwMDBaMBQxEjAQBgNVBAMMCWxv
Y2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABE3U4Sz7rq3oaZb2JaD8
ou66DOpbCRj7G7e0Zr5ppeTf9TulCX7Ttb+dkDxFDYtOMnH7LQ+ljaN3eOIUFgei
GE8wCgYIKoZIzj0EAwIDSAAwRQIgOzdUo3n211Xd4ep0nwkKpQ/OEKhp/G51CYFa
nQ0bU/kCIQDVRi+c3GDmvE4LECWRhs8nDOPjBs2Ph/+iPpYI3gAQCQ==
-----END CERTIFICATE-----
"""
"""Self-signed for `localhost`, and valid only on the first day of 2020. It protects nothing."""


async def front(listener: socket.socket, port: int) -> asyncio.Server:
    """Serve 127.0.0.1:`port` on `listener` within TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(CERTIFICATE)
        file.flush()
        context.load_cert_chain(file.name)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

    return await asyncio.start_server(pass_on, sock=listener, ssl=context)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
