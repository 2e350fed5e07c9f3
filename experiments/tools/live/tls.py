"""TLS by the standard library: the cloud shows a certificate, the edge trusts it and no other."""

import shutil
import ssl
import subprocess
from pathlib import Path

from splitleak.victims.errors import InvalidInputError

DAYS = 30
MADE = "openssl"


def serving(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """For the cloud; None where neither file is given.

    Raises:
        InvalidInputError: only one is given, or they are no certificate with its key.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InvalidInputError("TLS needs both --certificate and --key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(f"{certificate} and {key} are no certificate with its key: {error}") from error
    return context


def trusting(certificate: Path | None) -> ssl.SSLContext | None:
    """For the edge: this certificate alone counts, whatever host shows it; None without one.

    Raises:
        InvalidInputError: it is no certificate.
    """
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the file names the very certificate, and whoever shows it has its key
    try:
        context.load_verify_locations(certificate)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(f"{certificate} is no certificate: {error}") from error
    return context


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this computer and its key, made for a demonstration.

    Raises:
        InvalidInputError: openssl is not installed, or refuses.
    """
    if shutil.which(MADE) is None:
        raise InvalidInputError(f"--tls makes a certificate with {MADE}, which is not installed")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [MADE, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", "/CN=localhost", "-days", str(DAYS), "-out", str(certificate), "-keyout", str(key)]
    done = subprocess.run([*command, *named], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        raise InvalidInputError(f"--tls: {MADE} makes no certificate: {said[-1]}")
    key.chmod(0o600)
    return certificate, key
