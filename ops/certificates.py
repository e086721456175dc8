"""The certificate for encryption in transit between the nodes of a deployment (EMR, PEM files in S3).

Each deployment has its own self-signed certificate, for names inside its region only. EMR copies it to each node;
nobody else trusts it.
"""

import io
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

KEY = "certificates/nodes.zip"  # as in include/stack.yaml
VALID_DAYS = 825
RENEW_DAYS = 90


def make_certificate(region: str, now: datetime) -> bytes:
    """Return the zip that EMR expects: privateKey.pem, certificateChain.pem, trustedCertificates.pem."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    host = f"*.{region}.compute.internal"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("privateKey.pem", private)
        archive.writestr("certificateChain.pem", pem)
        archive.writestr("trustedCertificates.pem", pem)
    return buffer.getvalue()


def expiry(content: bytes) -> datetime:
    """Return when the certificate of such a zip expires."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return x509.load_pem_x509_certificate(archive.read("certificateChain.pem")).not_valid_after_utc


def ensure_certificate(s3: Any, bucket: str, region: str, now: datetime | None = None) -> bool:
    """Upload a certificate where the security configuration names it, if there is none or it expires soon.

    Returns:
        Whether a new certificate was uploaded; running clusters keep the old one to their end.
    """
    moment = now or datetime.now(UTC)
    try:
        current = s3.get_object(Bucket=bucket, Key=KEY)["Body"].read()
    except s3.exceptions.NoSuchKey:
        current = None
    if current is not None and expiry(current) > moment + timedelta(days=RENEW_DAYS):
        return False
    s3.put_object(Bucket=bucket, Key=KEY, Body=make_certificate(region, moment))
    return True
