#!/usr/bin/env python3
"""Write tests/data/personal/labelled.jsonl: sentences with and without personal data, and what is in them.

usage: make_personal_goldens.py FOLDER        (seed 1; Python 3.11)

The numbers are made here from each country's rule, apart from the C++ code that they judge. Sentences without
personal data hold what is easily taken for some: numbers with a wrong check digit, ISBNs, versions, times, amounts,
network addresses, hashes. All of it is invented; nobody's number is meant.
"""
import json
import pathlib
import random
import sys

R = random.Random(1)


def digits(n, first="123456789"):
    return R.choice(first) + "".join(R.choice("0123456789") for _ in range(n - 1))


def luhn(body):
    total = sum(sum(divmod(int(d) * (2 if i % 2 == 0 else 1), 10)) for i, d in enumerate(reversed(body)))
    return body + str(-total % 10)


def mod11(body, weights):
    rest = sum(int(d) * w for d, w in zip(body, weights)) % 11
    return str(0 if rest < 2 else 11 - rest)


def cpf():
    body = digits(9)
    body += mod11(body, range(10, 1, -1))
    return body + mod11(body, range(11, 1, -1))


def cnpj():
    body = digits(8) + "0001"
    body += mod11(body, [5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2])
    return body + mod11(body, [6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2])


def dni():
    number = digits(8)
    return number + "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def nie():
    letter, number = R.choice("XYZ"), digits(7)
    return letter + number + "TRWAGMYFPDXBNJZSQVHLCKE"[int(str("XYZ".index(letter)) + number) % 23]


def pesel():
    year, month, day = R.randint(1940, 2010), R.randint(1, 12), R.randint(1, 28)
    body = f"{year % 100:02}{month + (20 if year >= 2000 else 0):02}{day:02}{R.randint(0, 9999):04}"
    return body + str(-sum(int(d) * w for d, w in zip(body, [1, 3, 7, 9] * 3)) % 10)


def nik():
    day = R.randint(1, 28) + R.choice([0, 40])
    return f"{R.choice([31, 32, 33, 35, 51, 73])}{R.randint(1, 79):02}{R.randint(1, 20):02}" \
           f"{day:02}{R.randint(1, 12):02}{R.randint(0, 99):02}{R.randint(1, 999):04}"


def nric():
    series, body = R.choice("STFG"), digits(7, "0123456789")
    total = sum(int(d) * w for d, w in zip(body, [2, 7, 6, 5, 4, 3, 2])) + (4 if series in "TG" else 0)
    return series + body + ("JZIHGFEDCBA" if series in "ST" else "XWUTRQPNMLK")[total % 11]


def ssn():
    return f"{R.choice([R.randint(1, 665), R.randint(667, 899)]):03}-{R.randint(1, 99):02}-{R.randint(1, 9999):04}"


def verhoeff(body):
    d = [[(i + j) % 5 if i < 5 and j < 5 else 5 + (i + j) % 5 if i < 5 else 5 + (i - j) % 5 if j < 5 else (i - j) % 5
          for j in range(10)] for i in range(10)]
    p = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
    for i in range(2, 8):
        p.append([p[i - 1][p[1][j]] for j in range(10)])
    for check in "0123456789":
        c = 0
        for i, digit in enumerate(reversed(body + check)):
            c = d[c][p[i % 8][int(digit)]]
        if c == 0:
            return body + check
    raise AssertionError


def aadhaar():
    body = verhoeff(digits(11, "23456789"))
    return f"{body[:4]} {body[4:8]} {body[8:]}"


def codice_fiscale():
    odd = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
                   [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8,
                    12, 14, 16, 10, 22, 25, 24, 23]))
    value = lambda c: int(c) if c.isdigit() else ord(c) - 65
    letters = lambda n: "".join(R.choice("BCDFGLMNPRSTVZ") for _ in range(n))
    body = letters(6) + f"{R.randint(30, 99)}{R.choice('ABCDEHLMPRST')}{R.randint(1, 28):02}{R.choice('AFHL')}{digits(3)}"
    total = sum(odd[c] if i % 2 == 0 else value(c) for i, c in enumerate(body))
    return body + chr(65 + total % 26)


def nir():
    body = f"{R.choice('12')}{R.randint(30, 99)}{R.randint(1, 12):02}{R.randint(1, 95):02}{R.randint(1, 990):03}{R.randint(1, 990):03}"
    key = f"{97 - int(body) % 97:02}"
    return f"{body[0]} {body[1:3]} {body[3:5]} {body[5:7]} {body[7:10]} {body[10:]} {key}"


def iban():
    country, size = R.choice([("DE", 18), ("ES", 20), ("PL", 24), ("NL", 0), ("GB", 0), ("BR", 0)])
    if country == "NL":
        bban = "INGB" + digits(10)
    elif country == "GB":
        bban = "NWBK" + digits(14)
    elif country == "BR":
        bban = digits(23) + "C1"
    else:
        bban = digits(size)
    value = "".join(str(int(c, 36)) for c in bban + country + "00")
    text = f"{country}{98 - int(value) % 97:02}{bban}"
    return text if R.random() < 0.5 else " ".join(text[i:i + 4] for i in range(0, len(text), 4))


def card():
    number = R.choice([lambda: luhn("4" + digits(14, "0123456789")), lambda: luhn("5" + R.choice("12345") + digits(13)),
                       lambda: luhn("37" + digits(12))])()
    if R.random() < 0.4:
        return number
    sep = R.choice(" -")
    return sep.join([number[:4], number[4:10], number[10:]] if len(number) == 15 else
                    [number[i:i + 4] for i in range(0, 16, 4)])


def phone():
    d = lambda n: digits(n, "0123456789")
    return R.choice([
        lambda: f"+55 11 9{d(4)}-{d(4)}", lambda: f"(21) 9{d(4)}-{d(4)}", lambda: f"(11) 3{d(3)}-{d(4)}",
        lambda: f"+62 812-{d(4)}-{d(4)}", lambda: f"0812-{d(4)}-{d(4)}", lambda: f"+65 9{d(3)} {d(4)}",
        lambda: f"+1 415 {R.randint(200, 999)} {d(4)}", lambda: f"({R.randint(200, 989)}) {R.randint(200, 999)}-{d(4)}",
        lambda: f"{R.randint(200, 989)}-{R.randint(200, 999)}-{d(4)}", lambda: f"+34 6{d(2)} {d(3)} {d(3)}",
        lambda: f"+48 {R.randint(500, 899)} {d(3)} {d(3)}", lambda: f"+44 20 7{d(3)} {d(4)}",
        lambda: f"06 {d(2)} {d(2)} {d(2)} {d(2)}", lambda: f"+81-3-{digits(4)}-{d(4)}"])()


def email():
    user = R.choice(["ana.souza", "budi", "j_kowalski", "wei.ling+news", "mario-rossi", "o'brien2".replace("'", ""), "a1"])
    return user + "@" + R.choice(["example.com", "mail.example.org", "empresa.com.br", "kantor.co.id", "my-site.example"])


def dotted(number):
    return f"{number[:3]}.{number[3:6]}.{number[6:9]}-{number[9:]}"


MAKERS = {
    "e-mail": (email, ["Write to {}.", "Escreva para {} até sexta.", "<{}> wrote:", "Kontakt: {}, pokój 4", "Alamat surel saya {}"]),
    "phone": (phone, ["Call {} after six.", "Meu telefone é {}.", "Hubungi {} untuk info.", "Tel.: {}", "Reach us at {} or come by.",
                      "Appelez le {} demain."]),
    "card": (card, ["Charge my card {} please.", "Cartão {} vencimento 05/27", "Kartu saya {}, tolong", "card no {}."]),
    "IBAN": (iban, ["Pay to {} today.", "IBAN: {}", "Konto {}, bitte bis Montag.", "przelew na {}"]),
    "CPF": (lambda: R.choice([dotted, str])(cpf()), ["Meu CPF é {}.", "CPF {} do titular", "Cadastro: {}"]),
    "CNPJ": (lambda: (lambda n: f"{n[:2]}.{n[2:5]}.{n[5:8]}/{n[8:12]}-{n[12:]}")(cnpj()),
             ["CNPJ {}", "A empresa ({}) emitiu a nota.", "inscrita sob o nº {},"]),
    "DNI": (lambda: R.choice([dni, nie])(), ["Mi DNI es {}.", "con NIE {}, residente en Vigo", "{} (DNI)"]),
    "PESEL": (pesel, ["PESEL: {}", "numer PESEL {} i adres", "{} to mój numer"]),
    "NIK": (nik, ["NIK {} terdaftar.", "No. KTP: {}", "Nomor induk kependudukan {} milik Budi"]),
    "NRIC": (nric, ["NRIC {}", "My number is {}.", "FIN: {} (work pass)"]),
    "SSN": (ssn, ["SSN {}", "My social security number is {}.", "ID {} on file"]),
    "Aadhaar": (aadhaar, ["Aadhaar {}", "My number is {}.", "UIDAI: {}"]),
    "codice fiscale": (codice_fiscale, ["Codice fiscale {}", "C.F. {}, nato a Roma"]),
    "NIR": (nir, ["Numéro de sécurité sociale {}", "n° {} (assuré)"]),
}


def wrong(number):
    """The same with one digit changed: any single change breaks these checks."""
    places = [i for i, c in enumerate(number) if c.isdigit()]
    i = places[-1]
    return number[:i] + str((int(number[i]) + R.randint(1, 9)) % 10) + number[i + 1:]


def innocent():
    d = lambda n: digits(n, "0123456789")
    return R.choice([
        lambda: f"Version {R.randint(1, 9)}.{R.randint(0, 20)}.{R.randint(0, 99)} came out in 20{d(2)}.",
        lambda: f"ISBN 978-3-16-{d(6)}-{d(1)}", lambda: f"It took {d(2)}.{d(9)} seconds.",
        lambda: f"At {R.randint(1600000000000, 1799999999999)} the clock stopped.",
        lambda: f"The server 10.{R.randint(0, 255)}.{R.randint(0, 255)}.{R.randint(0, 255)} answered.",
        lambda: f"commit {R.getrandbits(160):040x}", lambda: f"On 20{R.randint(10, 29)}-{R.randint(10, 12)}-{R.randint(10, 28)} at 12:30:45.",
        lambda: f"The bridge cost {R.randint(1, 999)},{d(3)},{d(3)} dollars.", lambda: f"Population: {R.randint(1, 99)} {d(3)} {d(3)}",
        lambda: f"see section {R.randint(1, 9)}.{R.randint(1, 9)}.{R.randint(1, 9)}, pages {R.randint(100, 199)}-{R.randint(200, 299)}",
        lambda: f"git clone git@host:project and mail @someone", lambda: f"order {digits(7)}/{d(4)} of 3 parts",
        lambda: f"x = {d(1)}.{d(16)}", lambda: f"part no. {d(3)}-{d(3)}-{d(3)}-{d(3)}", lambda: f"{R.getrandbits(128):032x}",
        lambda: f"ratio 3:4, {R.randint(2, 9)}-{R.randint(10, 99)} points, year {R.randint(1700, 2030)}",
        lambda: f"install lib@{R.randint(1, 9)}.{R.randint(0, 9)}.0 now", lambda: f"RFC {R.randint(1000, 9999)} and port {R.randint(1024, 65000)}",
        lambda: f"CPF {wrong(dotted(cpf()))} foi recusado", lambda: f"card {wrong(luhn('4' + d(14)))} was refused",
        lambda: f"IBAN {wrong('DE89370400440532013000')} is wrong", lambda: f"PESEL {wrong(pesel())}",
        lambda: f"DNI {wrong(dni()[:-1])}{R.choice('IOU')}", lambda: f"SSN 000-{d(2)}-{d(4)}", lambda: f"SSN 9{d(2)}-{R.randint(1, 99):02}-1234",
        lambda: f"model GT-{d(4)} costs {d(3)}.{d(2)}", lambda: f"Öffnungszeiten: 9-12 und 14-18 Uhr, {R.randint(1, 28)}.{R.randint(1, 12)}.2024",
    ])()


def main():
    folder = pathlib.Path(sys.argv[1])
    lines = []
    for kind, (make, frames) in MAKERS.items():
        for _ in range(40):
            value = make()
            lines.append({"text": R.choice(frames).format(value), "found": [[kind, value]]})
    for _ in range(40):  # several in one sentence
        one, two = R.sample(sorted(MAKERS), 2)
        a, b = MAKERS[one][0](), MAKERS[two][0]()
        lines.append({"text": f"First {a}; then, on another line,\nsecond: {b}!", "found": [[one, a], [two, b]]})
    lines += [{"text": innocent(), "found": []} for _ in range(600)]
    R.shuffle(lines)
    (folder / "labelled.jsonl").write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines))


if __name__ == "__main__":
    main()
