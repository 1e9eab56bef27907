# Gregorian calendar from 2000-01-01 on, for the stand-ins of time and machine.RTC.
# Own arithmetic: the C library of the 32-bit unix build ends in 2038, a chip's does not.


def _days(year, month):
    # Days from 2000-01-01 to the first of a month. A year begins in March here, so that the leap day is its last.
    month = (month + 9) % 12
    year -= month // 10
    return 365 * year + year // 4 - year // 100 + year // 400 + (306 * month + 5) // 10 - 730425


def seconds_to(year, month, day, hour, minute, second):
    # Seconds from 2000-01-01.
    return (_days(year, month) + day - 1) * 86400 + hour * 3600 + minute * 60 + second


def gmtime(seconds):
    # The eight fields of MicroPython's struct_time.
    days, seconds = divmod(int(seconds), 86400)
    year = 2000 + days * 400 // 146097
    if days < _days(year, 1):
        year -= 1
    elif days >= _days(year + 1, 1):
        year += 1
    month = 12
    while days < _days(year, month):
        month -= 1
    day = days - _days(year, month) + 1
    weekday = (days + 5) % 7  # 2000-01-01 was a Saturday
    return (year, month, day, seconds // 3600, seconds // 60 % 60, seconds % 60, weekday, days - _days(year, 1) + 1)
