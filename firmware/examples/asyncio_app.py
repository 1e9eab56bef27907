# With asyncio, in the place of app.py: the Hub, a measurement and the LED side by side. The session blocks for a round
# trip when it sends and when it connects; in between everybody else has the processor.
import asyncio

import hardware

blink_ms = 1000


async def listen(session):
    while True:
        session.poll(0)  # takes up what is there; all handlers run in here
        await asyncio.sleep_ms(50)


async def measure(session):
    while True:
        session.send({"count": session.sent + 1})
        await asyncio.sleep(10)


async def blink():
    on = False
    while True:
        on = not on
        hardware.led(on)
        await asyncio.sleep_ms(blink_ms)


def faster(payload):
    global blink_ms
    blink_ms = max(50, blink_ms // 2)
    return 200, {"blink_ms": blink_ms}


def run(session):
    session.on_method("faster", faster)
    asyncio.new_event_loop()  # without the tasks of a connection that was lost
    asyncio.run(together(session))


async def together(session):
    await asyncio.gather(listen(session), measure(session), blink())
