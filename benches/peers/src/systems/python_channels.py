"""What processes send each other by `multiprocessing`: queues, pipes, managers and
connections. Mirrors queued.rs and answered.rs; see python_workloads.py."""

import itertools
import multiprocessing
import time
from multiprocessing.connection import Client, Listener

from python_workloads import check, per_operation

TRIAL = 1000
GROWTH = 8
KEYS = 1000
KEY = b"a key that both sides know"


def phases(items):
    """The items of the warm-up, and those after it."""
    return items // 4, items


def produce(queue, barrier, size, items):
    block = bytes(size)
    for count in phases(items):
        barrier.wait()
        for item in itertools.repeat(block, count) if size else range(count):
            queue.put(item)
    barrier.wait()


def take(queue, size, count):
    """Takes items; returns the sum of the numbers, or of the lengths of blocks."""
    total = 0
    if size:
        for _ in range(count):
            total += len(queue.get())
    else:
        for _ in range(count):
            total += queue.get()
    return total


def consume(queue, barrier, size, items, sums, index):
    """Returns the seconds after the warm-up, until all are done."""
    for count in phases(items):
        barrier.wait()
        start = time.perf_counter()
        sums[index] += take(queue, size, count)
    barrier.wait()
    return time.perf_counter() - start


def queue_of(order, items):
    """Runs so many items of each producer through a new queue; returns seconds."""
    pairs, size = order["workers"], order["size"]
    queue = multiprocessing.Queue(order["chunk"])
    barrier = multiprocessing.Barrier(2 * pairs)
    sums = multiprocessing.RawArray("Q", pairs)
    shared = (queue, barrier, size, items)
    jobs = [(produce, shared)] * pairs
    jobs += [(consume, (*shared, sums, index)) for index in range(1, pairs)]
    others = [multiprocessing.Process(target=job, args=args, daemon=True) for job, args in jobs]
    for other in others:
        other.start()
    seconds = consume(*shared, sums, 0)
    for other in others:
        other.join()
        check(other.exitcode == 0)
    sizes = (count * size if size else count * (count - 1) // 2 for count in phases(items))
    check(sum(sums) == pairs * sum(sizes))
    return seconds


def queue(order):
    target, items = order["seconds"], TRIAL
    seconds = queue_of(order, items)
    while seconds < target / 4:
        items *= GROWTH
        seconds = queue_of(order, items)
    items = int(items * target / seconds)
    return queue_of(order, items) / (order["workers"] * items)


def answer(connection):
    while (number := connection.recv()) is not None:
        connection.send(number + 1)


def connect(address, family):
    with Client(address, family, authkey=KEY) as connection:
        answer(connection)


def ask(connection, target):
    """Seconds per number that goes there and comes back."""
    number = 0

    def one():
        nonlocal number
        number += 1
        connection.send(number)
        check(connection.recv() == number + 1)

    seconds = per_operation(target, one)
    connection.send(None)
    return seconds


def pipe(order):
    here, there = multiprocessing.Pipe()
    other = multiprocessing.Process(target=answer, args=(there,), daemon=True)
    other.start()
    seconds = ask(here, order["seconds"])
    other.join()
    return seconds


def listener(order):
    family = {"listener_unix": "AF_UNIX", "listener_tcp": "AF_INET"}[order["operation"]]
    address = ("127.0.0.1", 0) if family == "AF_INET" else None
    with Listener(address, family, authkey=KEY) as listener:
        args = (listener.address, family)
        other = multiprocessing.Process(target=connect, args=args, daemon=True)
        other.start()
        with listener.accept() as connection:
            seconds = ask(connection, order["seconds"])
        other.join()
    return seconds


def look_up(numbers, target):
    """Seconds per look-up in a dictionary where every number has itself as a key."""
    key = 0

    def one():
        nonlocal key
        key = (key + 1) % KEYS
        check(numbers[key] == key)

    return per_operation(target, one)


def look_up_at_once(numbers, barrier, target, rates, index):
    barrier.wait()
    rates[index] = 1 / look_up(numbers, target)


def clients(order, numbers):
    """Seconds per look-up of any client."""
    count = order["workers"]
    barrier = multiprocessing.Barrier(count)
    rates = multiprocessing.RawArray("d", count)
    shared = (numbers, barrier, order["seconds"], rates)
    others = [
        multiprocessing.Process(target=look_up_at_once, args=(*shared, index), daemon=True)
        for index in range(count)
    ]
    for other in others:
        other.start()
    for other in others:
        other.join()
        check(other.exitcode == 0)
    return 1 / sum(rates)


def manager(order):
    with multiprocessing.Manager() as manager:
        numbers = manager.dict({key: key for key in range(KEYS)})
        if order["operation"] == "manager_get":
            return look_up(numbers, order["seconds"])
        if order["operation"] == "manager_clients":
            return clients(order, numbers)
        key = 0

        def change():
            nonlocal key
            key += 1
            numbers[key % KEYS] = key

        seconds = per_operation(order["seconds"], change)
        check(numbers[key % KEYS] == key)
        return seconds


ALL = {
    "queue": queue,
    "pipe": pipe,
    "listener_unix": listener,
    "listener_tcp": listener,
    "manager_get": manager,
    "manager_set": manager,
    "manager_clients": manager,
}
