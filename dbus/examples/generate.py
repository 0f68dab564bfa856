#!/usr/bin/env python3
"""A picture from diffused in Python, with dbus-next (apt install python3-dbus-next).

    ./generate.py "red apple" apple.png

Progress and the end of a job are unicast to its submitter: no match rule is needed, and a handler
that is there before Submit misses nothing.
"""
import asyncio
import os
import sys

from dbus_next import BusType, Message, MessageType, Variant
from dbus_next.aio import MessageBus

SERVICE = "org.diffused.Diffused1"
ROOT = "/org/diffused/Diffused1"


async def call(bus, path, interface, member, signature, body):
    """One method call; the daemon's refusal as an exception, its descriptors beside the answer."""
    reply = await bus.call(Message(destination=SERVICE, path=path, interface=interface,
                                   member=member, signature=signature, body=body))
    if reply.message_type == MessageType.ERROR:
        raise RuntimeError(f"{reply.error_name}: {reply.body[0] if reply.body else ''}")
    return reply


async def generate(prompt, file, **options):
    bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
    ends = {}  # object path -> state
    ended = asyncio.Event()

    def on_message(message):
        if message.message_type != MessageType.SIGNAL or message.interface != SERVICE + ".Job":
            return
        if message.member == "Step":
            print("step %d of %d" % tuple(message.body[1:3]), file=sys.stderr)
        elif message.member == "Finished":
            ends[message.path] = message.body[0]
            ended.set()

    bus.add_message_handler(on_message)
    reply = await call(bus, ROOT, SERVICE + ".Manager", "Submit", "sa{sv}", [prompt, options])
    job = reply.body[0]
    while job not in ends:
        await ended.wait()
        ended.clear()
    if ends[job] != "done":
        raise RuntimeError(f"the job {ends[job]}")

    # A sealed file in memory; its bytes are the PNG. The body holds an index into the descriptors.
    reply = await call(bus, job, SERVICE + ".Job", "GetResult", "ua{sv}", [0, {}])
    with os.fdopen(reply.unix_fds[reply.body[0]], "rb") as picture, open(file, "wb") as to:
        to.write(picture.read())
    bus.disconnect()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: generate.py PROMPT FILE")
    try:
        # "u" is the D-Bus type of the option; the property Options lists all of them.
        asyncio.run(generate(sys.argv[1], sys.argv[2], steps=Variant("u", 20)))
    except RuntimeError as error:
        sys.exit(f"generate.py: {error}")
