"""A simulator of the part of the Hugging Face hub that the operator and its fetch use.

`with HubServer(Hub({"acme/tiny": Repository(files)})) as url:` in a test; `python -m lab.hub --port N` as a
process. Shapes follow huggingface_hub 2.4: `hf_api.model_info`, `file_download.get_hf_file_metadata`,
`utils/_http.hf_raise_for_status`.
"""

from lab.hub.content import Blob, Bytes, Sparse, as_blob
from lab.hub.faults import Fault
from lab.hub.models import small_model
from lab.hub.server import HubServer
from lab.hub.state import COMMIT, Generous, Hub, Repository, Request

__all__ = [
    "COMMIT",
    "Blob",
    "Bytes",
    "Fault",
    "Generous",
    "Hub",
    "HubServer",
    "Repository",
    "Request",
    "Sparse",
    "as_blob",
    "small_model",
]
