# Your application. The session is connected; an AzureError leads back to main.py, which connects anew.
INTERVAL = 10  # seconds


def run(session):
    count = 0
    while True:
        count += 1
        session.send({"count": count})
        session.poll(INTERVAL * 1000)
