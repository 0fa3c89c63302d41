"""What the environment says of connections: proxies, and the CA certificates to trust.

A setting that cannot be used is an error that names its variable. Loopback has no proxy.
This module knows nothing of requests, and does no I/O but reading certificates.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from functools import cache
from importlib.util import find_spec
from urllib.request import getproxies, proxy_bypass

import httpx

from langchain_thinnest.errors import ThinnestConnectionError, ThinnestRequestError

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: then no proxy stands between, and http is safe."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def proxy_for(url: httpx.URL) -> httpx.Proxy | None:
    """Read which proxy stands before a URL.

    Raises:
        ThinnestRequestError: If the environment names one that cannot be used.
    """
    if is_loopback(url.host):
        return None
    proxies = getproxies()
    kind = next((kind for kind in (url.scheme, "all") if proxies.get(kind)), None)
    if kind is None or _is_bypassed(url):
        return None
    variable = f"{kind.upper()}_PROXY"
    text = proxies[kind].strip()
    proxy = _url(text if "://" in text else f"http://{text}")
    if proxy is None:
        raise _unusable(variable, "is no URL")
    if proxy.scheme not in _PROXY_SCHEMES:
        raise _unusable(
            variable, f"begins with {proxy.scheme}://; use one of {', '.join(_PROXY_SCHEMES)}"
        )
    if not proxy.host or proxy.port == 0:
        raise _unusable(variable, "names no host")
    if proxy.scheme.startswith("socks") and find_spec("socksio") is None:
        raise _unusable(
            variable, 'is a SOCKS proxy, which needs a package: pip install "httpx[socks]"'
        )
    return httpx.Proxy(proxy)


def _url(text: str) -> httpx.URL | None:
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        return None


def _is_bypassed(url: httpx.URL) -> bool:
    """Whether NO_PROXY names the host, with or without the brackets of IPv6, or the port."""
    hosts = {url.host, url.host.strip("[]")}
    if ":" in url.host:
        hosts.add(f"[{url.host.strip('[]')}]")
    port = url.port or (443 if url.scheme == "https" else 80)
    with_port = {f"{host}:{port}" for host in hosts if ":" not in host or "[" in host}
    return any(proxy_bypass(host) for host in hosts | with_port)


def _unusable(variable: str, why: str) -> ThinnestRequestError:
    # The value stays unsaid: it may hold a password.
    return ThinnestRequestError(
        f"The proxy in the environment's {variable} cannot be used: it {why}. "
        "The message was not sent."
    )


def tls_context(url: httpx.URL) -> ssl.SSLContext:
    """The TLS settings for a URL.

    Raises:
        ThinnestConnectionError: If the CA certificates cannot be read.
    """
    if url.scheme != "https":
        return _no_tls()
    try:
        return _tls(tuple(os.environ.get(name) for name in _CA_VARIABLES))
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        said = f"{type(error).__name__}: {error}"
    variables = [name for name in _CA_VARIABLES if os.environ.get(name)]
    where = f" from the environment's {' or '.join(variables)}" if variables else ""
    raise ThinnestConnectionError(
        f"The CA certificates could not be read{where} ({said}). The message was not sent."
    )


@cache
def _tls(_: tuple[str | None, ...]) -> ssl.SSLContext:
    return httpx.create_ssl_context()  # slow, and the same for all connections


@cache
def _no_tls() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and costs nothing
