#!/usr/bin/env python3
"""Prints jobs as they come, change their state and go, with dbus-next (python3-dbus-next).

    ./watch.py [COUNT]        ends after COUNT lines

JobAdded, JobRemoved and the property State are public; everything else of a job is told to its
owner only.
"""
import asyncio
import sys

from dbus_next import BusType, Message, MessageType
from dbus_next.aio import MessageBus

SERVICE = "org.diffused.Diffused1"
RULES = (f"type='signal',sender='{SERVICE}',interface='{SERVICE}.Manager'",
         f"type='signal',sender='{SERVICE}',interface='org.freedesktop.DBus.Properties',"
         f"arg0='{SERVICE}.Job'")


def describe(message):
    """The line for a signal, or None."""
    if message.message_type != MessageType.SIGNAL:
        return None
    if message.member in ("JobAdded", "JobRemoved"):
        return f"{message.body[0]} {message.member[3:].lower()}"
    if message.member == "PropertiesChanged" and "State" in message.body[1]:
        return f"{message.path.rsplit('/', 1)[1]} {message.body[1]['State'].value}"
    return None


async def watch(count):
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    lines = asyncio.Queue()

    def on_message(message):
        line = describe(message)
        if line:
            lines.put_nowait(line)

    bus.add_message_handler(on_message)
    for rule in RULES:
        await bus.call(Message(destination="org.freedesktop.DBus", path="/org/freedesktop/DBus",
                               interface="org.freedesktop.DBus", member="AddMatch",
                               signature="s", body=[rule]))
    print("watching", flush=True)
    while count != 0:
        print(await lines.get(), flush=True)
        count -= 1
    bus.disconnect()


if __name__ == "__main__":
    asyncio.run(watch(int(sys.argv[1]) if len(sys.argv) > 1 else -1))
