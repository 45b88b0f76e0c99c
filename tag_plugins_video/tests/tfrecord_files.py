"""TFRecord files written by tensorboard's writer, of messages made by the protobuf package."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorboard.summary.writer.record_writer import RecordWriter

_TYPES = descriptor_pb2.FieldDescriptorProto


def _messages():
    """tensorflow/core/example/{feature,example}.proto, its maps as what they are on the wire."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")

    def add(name, *fields):
        made = file.message_type.add(name=name)
        for number, (field, kind, repeated) in enumerate(fields, 1):
            label = _TYPES.LABEL_REPEATED if repeated else _TYPES.LABEL_OPTIONAL
            entry = made.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                entry.type, entry.type_name = _TYPES.TYPE_MESSAGE, f".t.{kind}"
            else:
                entry.type = kind

    add("BytesList", ("value", _TYPES.TYPE_BYTES, True))
    add("FloatList", ("value", _TYPES.TYPE_FLOAT, True))
    add("Int64List", ("value", _TYPES.TYPE_INT64, True))
    add(
        "Feature",
        ("bytes_list", "BytesList", False),
        ("float_list", "FloatList", False),
        ("int64_list", "Int64List", False),
    )
    add("FeatureEntry", ("key", _TYPES.TYPE_STRING, False), ("value", "Feature", False))
    add("Features", ("feature", "FeatureEntry", True))
    add("FeatureList", ("feature", "Feature", True))
    add("FeatureListEntry", ("key", _TYPES.TYPE_STRING, False), ("value", "FeatureList", False))
    add("FeatureLists", ("feature_list", "FeatureListEntry", True))
    add("SequenceExample", ("context", "Features", False), ("feature_lists", "FeatureLists", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.SequenceExample"))


SequenceExample = _messages()


def sequence_example(context, frames):
    """``context``: values by name; ``frames``: a list of values for each step, by name."""
    made = SequenceExample()
    for name, values in context.items():
        entry = made.context.feature.add(key=name)
        _fill(entry.value, values)
    for name, steps in frames.items():
        entry = made.feature_lists.feature_list.add(key=name)
        for values in steps:
            _fill(entry.value.feature.add(), values)
    return made.SerializeToString()


def _fill(feature, values):
    kind = {bytes: feature.bytes_list, float: feature.float_list, int: feature.int64_list}[type(values[0])]
    kind.value.extend(values)


def write_tfrecord(path, records):
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)
        writer.flush()
    return str(path)


def video(name, labels, rgb, audio):
    """A YouTube-8M record from uint8 [T, D] matrices."""
    context = {"id": [name.encode()]} | ({"labels": list(labels)} if labels else {})
    frames = {"rgb": [[row.tobytes()] for row in rgb], "audio": [[row.tobytes()] for row in audio]}
    return sequence_example(context, frames)
