"""A DICOM peer that sends whatever bytes a test gives it."""

import socket
import struct
from contextlib import suppress

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

CT, VERIFICATION = 1, 3
ACCEPTED, REJECTED, DATA, RELEASED, ABORTED = 0x02, 0x03, 0x04, 0x06, 0x07
C_STORE, C_FIND, C_ECHO, C_CANCEL, N_EVENT_REPORT = 0x0001, 0x0020, 0x0030, 0x0FFF, 0x0100
NO_DATASET, DATASET = 0x0101, 0x0001


def association_request(*contexts, calling="RAW") -> bytes:
    contexts = contexts or (build_context(CTImageStorage, ExplicitVRLittleEndian), build_context(Verification))
    for index, context in enumerate(contexts):
        context.context_id = 2 * index + 1
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, "KAAPANA"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16384, "1.2.3.4"
    primitive.user_information = [length, implementation]
    primitive.presentation_context_definition_list = list(contexts)
    return A_ASSOCIATE_RQ(primitive).encode()


def pdu(kind: int, body: bytes = b"\0\0\0\0") -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def pdv(fragment: bytes, *, context: int = CT, last: bool = True, command: bool = True) -> bytes:
    return struct.pack(">LBB", len(fragment) + 2, context, command | last << 1) + fragment


def element(number: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHL", group, number, len(value)) + value


def command_set(
    field: int | None = C_STORE,
    *,
    message_id: int | None = 7,
    dataset: int | None = DATASET,
    sop_class: bytes | None = CTImageStorage.encode() + b"\0",
    instance: bytes | None = b"1.2.3\0",
) -> bytes:
    elements = element(0x0002, sop_class) if sop_class is not None else b""
    for number, value in ((0x0100, field), (0x0110, message_id), (0x0700, 0), (0x0800, dataset)):
        if value is not None:
            elements += element(number, struct.pack("<H", value))
    if instance is not None:
        elements += element(0x1000, instance)
    return element(0x0000, struct.pack("<L", len(elements))) + elements


def echo(message_id: int = 7) -> bytes:
    asked = command_set(
        C_ECHO, message_id=message_id, dataset=NO_DATASET, sop_class=b"1.2.840.10008.1.1\0", instance=None
    )
    return pdu(DATA, pdv(asked, context=VERIFICATION))


def store(dataset: bytes, *, instance: str, sop_class: str = CTImageStorage) -> bytes:
    """A C-STORE-RQ, its dataset in PDUs of 16 KiB."""
    uids = {"instance": padded(instance), "sop_class": padded(sop_class)}
    parts = [dataset[begin : begin + 16_000] for begin in range(0, len(dataset), 16_000)]
    pdus = [pdu(DATA, pdv(part, command=False, last=part is parts[-1])) for part in parts]
    return pdu(DATA, pdv(command_set(**uids))) + b"".join(pdus)


def padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


class RawPeer:
    """A connection; every wait ends after 20 seconds with an error."""

    def __init__(self, receiver, *, source: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection((receiver.host, receiver.port), 20, source_address=(source, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def associate(self, *contexts) -> bytes:
        """Request an association; gives the answering PDU."""
        self.send(association_request(*contexts))
        return self.read()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self) -> bytes:
        """The next PDU; empty if the connection was closed."""
        header = self._read(6)
        return header + self._read(int.from_bytes(header[2:6], "big")) if header else b""

    def status(self) -> int | None:
        """The status of the next response; none for an abort or a closed connection."""
        answer = self.read()
        if not answer or answer[0] != DATA:
            return None
        elements, offset = {}, 12
        while offset < len(answer):
            _, number, length = struct.unpack_from("<HHL", answer, offset)
            elements[number] = answer[offset + 8 : offset + 8 + length]
            offset += 8 + length
        return int.from_bytes(elements[0x0900], "little")

    def is_closed(self) -> bool:
        """Wait for the end of the connection; whether it came without another PDU than an abort."""
        while answer := self.read():
            if answer[0] != ABORTED:
                return False
        return True

    def reset(self) -> None:
        """Close as a crashed program does: by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _read(self, size: int) -> bytes:
        data = b""
        with suppress(ConnectionResetError, BrokenPipeError):
            while len(data) < size:
                received = self.sock.recv(size - len(data))
                if not received:
                    break
                data += received
        return data
