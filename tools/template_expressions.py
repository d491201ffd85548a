"""Small templates, one fact each, for the goldens of the chat-template interpreter. A bare line is an
expression (or several, between commas); one that holds a tag is a template as it is; <newline> is one."""

VARIABLES = {
    "s": "Hello, World", "empty": "", "u": "naïve Straße ΣΊΣΥΦΟΣ İ 👩‍🚀 語", "ws": " \t x y \n", "n": 7, "neg": -7,
    "f": 2.5, "yes": True, "no": False, "nothing": None, "xs": [3, 1, 2], "words": ["b", "A", "c", "a"],
    "d": {"b": 1, "a": {"x": [1, {"y": None}]}, "items": "shadowed", "get": 0}, "html": "<a href='x'>\"&\"</a>",
    "people": [{"name": "Ann", "age": 3, "home": {"city": "Oslo"}}, {"name": "bob", "age": 5, "home": {"city": "Rome"}},
               {"name": "Cy", "age": 3, "home": {"city": "oslo"}}, {"name": "Di"}],
    "lines": "one\ntwo\r\nthree\n\nfive", "big": 18446744073709551615, "mixed": [1, 2.0, "3", None, True, [], {}],
}

EXPRESSIONS = r"""
1 + 2 * 3
7 // 2, -7 // 2, 7 // -2, 7.5 // 2, -7.5 // 2
7 % 3, -7 % 3, 7 % -3, -7.5 % 2, 7.5 % -2
2 ** 3 ** 2
-2 ** 2
2 ** -1
2 ** 0.5
4 / 2
1 / 3
10 / 4 * 2
1e3, 1e16, 1e15, 123456789012345680.0, 1e-4, 0.00001, 1.5e300, 2.50
1_000, 0x1F, 0b101, 0o17
0.1 + 0.2
1e400, -1e400
big + 1
9223372036854775807 + 1
not not n
not yes == no
1 if yes else 2
1 if no
'[' ~ (1 if no) ~ ']'
(1 if no) is undefined
'a' if no else 'b' if no else 'c'
yes and n, no and n, no or n, nothing or 'x' or 1, empty and missing
1 < 2 < 3, 1 < 3 < 2, 1 == 1.0 == true, 1 != 2 != 1
'a' < 'b', 'a' < 'B', [1, 2] < [1, 3], (1,) < (1, 2)
1 < 'a'
nothing < 1
[] < ()
nothing == none, missing == other_missing, missing == none
'a' in s, 'W' in s, 'Hell' in s, '' in s, 1 in xs, 4 not in xs, 'b' in d, 'z' in d, 'x' in missing
1 in s
[1] in d
1 in 5
s ~ 1 ~ none ~ 1.0 ~ true ~ missing ~ [1, 'a']
s + 1
1 + s
'a' + 'b' 'c'
[1] + [2], (1,) + (2, 3)
[1] + (2,)
'ab' * 3, 3 * 'ab', 'ab' * -1, [0] * 3, 'x' * true
'a' * 'b'
-n, +n, -f, -true, +true
-s
1 + none
missing + 1
missing.attribute
missing['item']
missing()
d.missing.deeper
d.missing
d.missing is defined, d.b is defined, missing is defined, missing.x is defined
nothing.x
nothing.x is defined
n.x, s.x, xs.x, d.x, yes.x
s[0], s[-1], s[100], s['x'], xs[0], xs[-1], xs[9], xs['a'], d['b'], d[0], d[[]]
xs.0, xs.2, people.0.name, (1, (2, 3)).1.0
s[1:3], s[:-1], s[::-1], s[::2], s[-3:], s[5:2], s[2:100], s[-100:2], s[10:0:-3]
xs[1:], xs[::-1], xs[:1], xs[-2:], xs[:], (1, 2, 3)[::-1], xs[::-2]
u[0:8], u[-1], u[::-1], u|length, u[3], u[27:29]
xs[::0]
xs['a':]
xs[none:2]
nothing[1:]
missing[1:]
d[1:]
range(5)[1:3], range(5)[::-1], range(10)[2], range(3), range(0, 10, 3)|list, range(3, 0, -1)|list, range(0)
range(100001)
range(1, 2, 0)
range()
range('a')
range(3)|length, range(3)|sum, 2 in range(3), range(3) == range(0, 3), range(3).stop
(), (1,), (1, 2), [], [1,], {}, {'a': 1,}
{'a': 1, 'b': 2, 'a': 3}
{1: 'int', 1.0: 'float', true: 'bool', none: 'none', (1, 2): 'tuple'}
{1: 'a'}[1.0], {1: 'a'}[true], {(1, 2): 'b'}[(1, 2)], {(1, 2): 'b'}[1, 2]
{[1]: 2}
['it\'s', "say \"x\"", 'both \' and "', '\n\t\r\\', 'é', '\x00\x7f\u200b\U0001F600', '\u00a0']
'\x41\u0042\103\q\<newline>z'
"a\"b", 'a\'b', "tab\tend", '\\n'
[u, ws]
mixed, d, people[0]
mixed|string, d|string, nothing|string, yes|string, f|string
true, True, false, False, none, None
{'a': {'b': [1, (2,), {'c': none}]}}
d.items
d.items()
d['items'], d.get, d['get']
d.keys()|list, d.values()|list, d.keys(), d.values()|length, d.items()|length
d.get('b'), d.get('z'), d.get('z', 5), d.get('a').x[1].y, d.get()
d.items()|list|last
d.items()[0]
'b' in d.keys(), 1 in d.values(), ('b', 1) in d.items()
d.copy().b
d.pop('b')
d.update({})
d.setdefault('q', 1)
d.clear()
xs.append(1)
xs.append
xs.append is defined, d.pop is defined
xs.pop()
xs.sort()
xs.index(1), xs.count(3), (1, 2, 1).count(1), xs.copy(), xs.index(2, 1)
xs.index(99)
s.__class__
''.__class__.__mro__
s.upper(), s.lower(), s.title(), s.capitalize(), s.swapcase(), s.casefold()
u.upper(), u.lower(), u.title(), u.capitalize(), u.swapcase(), u.casefold()
'ΑΣ ΑΣΑ Σ'.lower(), 'ŉ ǰ ﬁ ß'.upper(), 'ǆ ﬁ'.title(), 'ﬀ'.capitalize()
"they're bill's friends".title(), "x1y 2z".title()
ws.strip(), ws.lstrip(), ws.rstrip(), 'xxaxx'.strip('x'), 'abcba'.strip('ab'), 'xyz'.lstrip('zyx'), '\u3000a\u2003'.strip()
'x'.strip(1)
'a b  c'.split(), ' a b  c '.split(), 'a,b,,c'.split(','), 'a,b,c'.split(',', 1), 'a b c'.split(none, 1), ''.split(), ''.split(',')
'a b c d'.rsplit(none, 2), 'a,b,c'.rsplit(',', 1), ' a  b '.rsplit(), 'aXXbXXc'.split('XX'), 'a b '.split(maxsplit=1), ' a b c '.rsplit(none, 1)
'a'.split('')
'a,b'.split(1)
lines.splitlines(), lines.splitlines(true), 'a\x0bb\x1cc\u2028d\x85e'.splitlines(), ''.splitlines(), '\n'.splitlines()
'-'.join(['a', 'b']), ''.join('abc'), ', '.join(d), '-'.join(()), '-'.join(words|map('upper'))
'-'.join([1])
'-'.join(none)
'-'.join(missing)
'aaa'.replace('a', 'b'), 'aaa'.replace('a', 'bb', 2), 'abc'.replace('', '-'), ''.replace('', 'x'), 'aaa'.replace('aa', 'b'), 'é語'.replace('', '.'), 'abc'.replace('', '-', 2)
'aaa'.replace('a')
s.startswith('Hello'), s.startswith(('x', 'H')), s.startswith('World', 7), s.endswith('ld'), s.endswith(('x', 'd')), s.endswith('lo', 0, 5), ''.startswith(''), s.startswith('', 50)
s.startswith(1)
s.find('o'), s.find('o', 5), s.rfind('o'), s.find('zz'), s.index('W'), u.find('ß'), u.rfind('語'), s.find('o', -4), s.find('l', 0, 3), s.find('')
s.index('zz')
s.count('o'), s.count('l', 5), s.count(''), 'aaaa'.count('aa'), u.count('')
'ab'.center(6) ~ '|', 'ab'.center(5, '*'), 'abc'.center(6, '*'), 'ab'.ljust(4, '.'), 'ab'.rjust(4, '.'), '42'.zfill(5), '-42'.zfill(5), '+1'.zfill(1)
'ab'.center(5, 'xy')
'a=b=c'.partition('='), 'a=b=c'.rpartition('='), 'abc'.partition('='), 'abc'.rpartition('=')
'prefix-x'.removeprefix('prefix-'), 'x.txt'.removesuffix('.txt'), 'x'.removeprefix('y')
'a\tb'.expandtabs(4), 'ab\tc\td'.expandtabs(), '\t'.expandtabs(0)
'abc'.isalpha(), 'ab1'.isalnum(), '12'.isdigit(), '１２'.isdigit(), '²'.isdigit(), '²'.isdecimal(), '½'.isnumeric(), '一'.isnumeric(), ''.isalpha()
'abc'.islower(), 'ABC1'.isupper(), 'Abc Def'.istitle(), 'Abc def'.istitle(), ' \t'.isspace(), ''.isspace(), 'a_1'.isidentifier(), '1a'.isidentifier(), 'é'.isascii(), ''.isascii(), 'a\n'.isprintable()
'{} {}'.format(1, 'a'), '{1} {0}'.format(1, 2), '{x}'.format(x=[1]), '{{}}'.format(), '{0[0]} {1.b}'.format(xs, d), '{!r:>5}'.format('a')
'{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd'), '{:05d} {:+d} {:x} {:#X} {:b} {:o} {:,}'.format(42, 42, 255, 255, 5, 8, 1234567)
'{:.2f} {:8.3f} {:e} {:g} {:%} {:.0f}'.format(3.14159, 2.5, 12345.678, 0.0001, 0.25, 2.5), '{:.3}'.format('abcdef'), '{:{w}}|'.format('a', w=4)
'{:d}'.format('a')
'{}'.format()
'{'.format()
'}'.format()
'%s %s' % (1, 'a'), '%s' % s, '%d' % 3.9, '%5d|%-5d|%05d|%+d' % (1, 2, 3, 4), '%x %X %o %#x' % (255, 255, 8, 255), '%%' % ()
'%.2f %8.3f %e %g %G' % (3.14159, 2.5, 12345.678, 0.0001, 1e20), '%r %r' % ('a', [1]), '%c%c' % ('x', 65), '%(a)s-%(b)d' % {'a': 1, 'b': 2}, '%10s|%-10s|%.2s' % ('a', 'b', 'cde')
'%s' % (1, 2)
'%s %s' % (1,)
'%d' % 'a'
'%q' % 1
'%' % 1
s|upper, s|lower, s|title, s|capitalize, 'foo-bar (baz) <qux> it\'s'|title, n|upper, missing|upper, nothing|lower
ws|trim, 'xxaxx'|trim('x'), n|trim, missing|trim, ' a '|trim|length
s|length, xs|length, d|length, missing|length, u|count
n|length
nothing|length
(xs|map('string'))|length
s|first, xs|first, d|first, []|first, missing|first, s|last, xs|last, d|last, []|last is undefined, range(3)|last
(xs|map('string'))|last
(xs|map('string'))|first
5|first
xs|join, xs|join(', '), xs|join('-', attribute=none), people|join(', ', attribute='name'), s|join('.'), d|join('|'), mixed|join(','), missing|join, []|join(',')
5|join
missing|default('x'), nothing|default('x'), nothing|default('x', true), ''|default('x', boolean=true), 0|d(1), 0|d(1, true), missing|default, missing|d
d.missing|default('a')|upper
d.missing.deeper|default('a')
'aaa'|replace('a', 'b'), 'aaa'|replace('a', 'b', 2), n|replace('7', 'x'), 'a1'|replace(1, 2), ('a<'|safe)|replace('<', '&')
xs|sort, xs|sort(reverse=true), words|sort, words|sort(case_sensitive=true), people[:3]|sort(attribute='age,name')|map(attribute='name')|join, people[:3]|sort(true, attribute='home.city')|map(attribute='name')|join
mixed|sort
d|dictsort, {'B': 2, 'a': 1, 'C': 0}|dictsort, {'B': 2, 'a': 1}|dictsort(true), {'B': 2, 'a': 3}|dictsort(by='value'), {'B': 2, 'a': 1}|dictsort(false, 'key', true)
{'a': 1}|dictsort(by='x')
xs|dictsort
words|unique|list, words|unique(true)|list, ['a', 'A', 1, 1.0, none]|unique|list, people|unique(attribute='age')|map(attribute='name')|list
xs|min, xs|max, words|min, words|max, words|max(case_sensitive=true), []|min is defined, people[:3]|max(attribute='age'), s|min
xs|sum, [1.5, 2]|sum, people[:3]|sum(attribute='age'), people[:2]|sum('age', 10), []|sum, [[1], [2]]|sum(start=[])
words|sum
xs|reverse|list, s|reverse, d|reverse|list, (xs|map('string'))|reverse, range(3)|reverse|list
xs|list, s|list, d|list, range(3)|list, missing|list, (1, 2)|list
5|list
xs|batch(2)|list, xs|batch(2, 'x')|list, range(7)|slice(3)|list, range(7)|slice(3, '-')|list
people|groupby('age')|list
people[:3]|groupby('age')|map('first')|list, people[:3]|groupby('home.city')|map('list')|map('first')|list, people|groupby('age', default=0)|map('first')|list
xs|map('string')|list, words|map('upper')|join, people|map(attribute='name')|list, people|map(attribute='age', default=0)|list, people|map(attribute='home.city', default='?')|list, [[1, 2]]|map('join', '-')|list, nothing|map('upper')|list, [(1, 2)]|map(attribute=1)|list
xs|map
xs|map('nope')|list
xs|select|list, mixed|select|list, mixed|reject|list, xs|select('odd')|list, xs|reject('odd')|list, xs|select('gt', 1)|list, mixed|select('string')|list, words|reject('equalto', 'A')|list, xs|select('in', [1, 2])|list
people|selectattr('age')|map(attribute='name')|list, people|selectattr('age', 'equalto', 3)|list|length, people|rejectattr('age', '==', 3)|map(attribute='name')|list, people|selectattr('home.city', 'defined')|list|length, people|rejectattr('age', 'defined')|list
xs|selectattr|list
d|items|list, missing|items|list, {'a': 1}|items|first
xs|items|list
s|string, n|string, '<'|escape, html|e, html|escape|escape, html|forceescape, (html|safe)|e, 5|e
html|safe, (html|safe) + '<b>', '<b>' + (html|safe), html|safe ~ '<b>', ('<%s>'|safe) % '<b>', ('<'|safe)|upper, ('<b>'|e) * 2, ('a'|safe).join(['<', '>']), ('a<'|safe).replace('a', '<')
[('<'|safe)], (('<'|safe)|string) + '<', (['<'|safe, '<']|join), ('<b>'|safe)[1:] + '<', (s|safe)|length
'a\nb\n\nc'|indent, 'a\nb\n\nc'|indent(2, true), 'a\nb\n\nc'|indent(2, blank=true), 'a\nb'|indent('> '), 'a\r\nb'|indent(1), ''|indent(first=true), 'a\n'|indent
5|indent
'foo bar baz qux'|truncate(9), 'foo bar baz qux'|truncate(9, true), 'foo bar baz qux'|truncate(11), 'foo bar baz qux'|truncate(11, false, '..', 0), 'abcdefgh'|truncate(5, leeway=0)
'ab'|center(6) ~ '|', 'ab'|center|length, 'one two,three'|wordcount, u|wordcount
'%s-%s'|format(1, 'a'), '%(x)s'|format(x=2), '%.1f'|format(2.25), '%s'|format((1, 2))
'3'|int, '3.9'|int, 3.9|int, -3.9|int, 'x'|int, 'x'|int(5), nothing|int, '0x1F'|int(0, 16), '1f'|int(base=16), '0b11'|int(base=2), true|int, ' 42 '|int, '1_000'|int, '١٢'|int, []|int, '1e3'|int
missing|int
'3.5'|float, 3|float, 'x'|float, 'x'|float(1.5), nothing|float, '1e3'|float, 'inf'|float, '-nan'|float|string, ' 2 '|float
42.55|round, 42.55|round(1), 42.5|round, 43.5|round, 2.675|round(2), 42.55|round(1, 'floor'), 42.51|round(1, 'ceil'), 5|round, 15|round(-1), 25|round(-1), 1234.5|round(-2), 7|round(0, 'ceil'), -0.4|round
1.5|round(0, 'down')
-5|abs, 5|abs, -2.5|abs, true|abs, (-5)|abs
'a'|abs
d|tojson, mixed|tojson, u|tojson, u|tojson(ensure_ascii=true), html|tojson, '\x00\x1f\x7f\b\f/\\"'|tojson, nothing|tojson, f|tojson, big|tojson, 1e400|tojson, 1e16|tojson
d|tojson(indent=2), []|tojson(indent=2), {}|tojson(indent=2), [[], {}]|tojson(indent=1), d|tojson(indent=0), d|tojson(indent='--'), d|tojson(separators=(',', ':')), d|tojson(indent=2, separators=(', ', ' = '))
{'b': 1, 'a': 2}|tojson(sort_keys=true), {1: 2, none: 3, true: 4, 1.5: 5}|tojson, (1, (2,))|tojson
missing|tojson
{'a': missing}|tojson
(xs|map('string'))|tojson
{(1, 2): 3}|tojson
range|tojson
'{"a": [1, 2.5, null, true, "x"]}'|from_json, ('{"b": 1, "a": 2}'|from_json)|tojson
'a b/c?d=é&f'|urlencode, {'a b': 1, 'c': 'd&'}|urlencode, [('x', 'y z')]|urlencode
1|filesizeformat, 999|filesizeformat, 1000|filesizeformat, 1536|filesizeformat(true), 1e7|filesizeformat, '12'|filesizeformat
people[0]|attr('name'), s|attr('upper') is defined, d|attr('b') is defined, d|attr('get') is defined
n is odd, n is even, n is divisibleby 7, n is divisibleby(2), 2.0 is even
'a' is odd
s is string, n is string, n is number, f is number, yes is number, n is integer, yes is integer, f is integer, f is float, yes is boolean, n is boolean, yes is true, no is false, 1 is true, nothing is none, n is none
d is mapping, xs is mapping, xs is sequence, s is sequence, d is sequence, n is sequence, xs is iterable, n is iterable, s is iterable, missing is iterable, missing is sequence, range(2) is sequence, (xs|map('string')) is iterable, (xs|map('string')) is sequence, nothing is iterable
range is callable, s.upper is callable, n is callable, missing is callable
missing is undefined, s is undefined, missing is not defined, s is defined
1 is eq 1, 1 is equalto 2, 1 is ne 2, 1 is lt 2, 2 is gt 1, 1 is le 1, 1 is ge 2, 1 is lessthan 2, 1 is greaterthan 0, 1 is sameas 1, 1 is sameas 1.0, nothing is sameas none, xs is sameas xs
1 is in xs, 1 is in(xs), 'x' is in s, 'l' is in s
'abc' is lower, 'ABC' is upper, 'Abc' is lower, ('x'|safe) is escaped, 'x' is escaped, 'upper' is filter, 'zz' is filter, 'odd' is test, 'zz' is test
n is not odd, not n is odd, n is odd and n is defined, n is odd or missing
1 is odd is even
n is divisibleby 0
raise_exception('custom message: ' ~ n)
raise_exception(missing)
raise_exception()
strftime_now('%Y-%m-%d %H:%M:%S'), strftime_now('%d %b %Y'), strftime_now('%A %a %B %j %U %W %V %u %w %y %I %p %-d %-m %% %e %F %T %D %R %c %x %X %G %g %h %C %n%t|%z|%Z')
namespace(a=1).a, namespace({'b': 2}, c=3).b, namespace().x is defined, namespace(a=1)['a']
namespace(_a=1)
namespace(1)
dict(a=1), dict(), dict({'x': 1}, y=2), dict([(1, 2), [3, 4]])
dict([1])
namespace().x
n()
s()
s.upper(1)
'a'.split(bogus=1)
d.get('b', default=1)
xs|join(bogus=1)
xs|sort(1, 2, 3, 4)
-1|abs, 2|float ** 2, -n|string|length, xs|length + 1, 'a' ~ 'b'|upper, ('a' ~ 'b')|upper, 1 + 2|string|int, not 1|int == 1
'a' 'b' "c" ~ 1
[1, 2, 3,][1], {'a': 1,}['a'], (1,)[0]
{'f': s}['f']|upper
((((1))))
xs|map('string')|join('+')|upper|length
[[1, 2], [3]]|map('sum')|list, [[1, 2], [3]]|sum(start=[])
'' or [] or {} or () or 0 or 0.0 or none or missing or 'all falsy'
d == {'get': 0, 'items': 'shadowed', 'a': {'x': [1, {'y': none}]}, 'b': 1}, [1, 2] == [1.0, 2.0], (1,) == [1], {} == {}, 'a' == 'a'|safe
*xs
1 +
(1
[1, 2
{'a' 1}
1 2
'unclosed
a.
a[
x is
x is nope
x|nope
foo()
s.nope()
{{ 1 }}
{% for x in xs %}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}
{% for x in xs|sort %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}
{% for x in xs %}{{ loop.previtem|default('-') }}<{{ x }}>{{ loop.nextitem|default('-') }} {% endfor %}
{% for x in missing %}x{% else %}empty{% endfor %}
{% for x in nothing %}x{% endfor %}
{% for a, b in [(1, 2), [3, 4], 'xy'] %}{{ a }}{{ b }};{% endfor %}
{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}
{% for a, b in [(1,)] %}{{ a }}{% endfor %}
{% for c in u %}[{{ c }}]{% endfor %}
{% for x in xs if x > 1 %}{{ x }}{{ loop.length }}{% endfor %}
{% for x in xs if x > 9 %}{{ x }}{% else %}none{% endfor %}
{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}
{% for x in [1] %}{% continue %}{% else %}E{% endfor %}|{% for x in [1, 2] %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% else %}E{% endfor %}
{% for x in xs %}{{ loop }}{% endfor %}
{% for x in [[1, [2]], 3] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}
{% for x in [1] %}{{ loop(x) }}{% endfor %}
{% for i in range(3) %}{% for j in range(2) %}{{ loop.index }}{% set outer = loop %}{% endfor %}{{ loop.index }} {% endfor %}
{% for x in xs %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }} {% endfor %}
{% break %}
{% for x in xs %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
{% if n %}a{% elif s %}b{% else %}c{% endif %}{% if not n %}a{% elif s %}b{% endif %}
{% set a = 1 %}{% set b, c = 2, 3 %}{% set (e, g) = [4, 5] %}{{ a }}{{ b }}{{ c }}{{ e }}{{ g }}
{% set t = 1, 2 %}{{ t }}{% set t = (1) %}{{ t }}{% set t = 1, %}{{ t }}
{% set x = 1 %}{% if yes %}{% set x = 2 %}{% endif %}{{ x }}{% for i in [1] %}{% set x = 3 %}{{ x }}{% endfor %}{{ x }}
{% set ns = namespace(x=1) %}{% for i in xs %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}
{% set d.x = 1 %}
{% set missing.x = 1 %}
{% set ns = namespace() %}{% set ns._x = 1 %}
{% set true = 1 %}
{% set x %}a{{ n }}b{% endset %}{{ x }}{{ x|length }}
{% set x|upper|trim %} a{{ n }}b {% endset %}[{{ x }}]
{% set x = xs %}{% set xs = [] %}{{ x }}{{ xs }}
{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c=5) }} {{ m(b=1, a=0) }} {{ m() }}
{% macro m(a, b=2, c=b) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}
{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}
{% macro m(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ m() }}{{ m(1) }}
{% macro m(a, a) %}{% endmacro %}
{% macro m(a=1, b) %}{% endmacro %}
{% macro fact(n) %}{{ 1 if n < 2 else n * (fact(n - 1)|int) }}{% endmacro %}{{ fact(10) }}
{% macro m() %}{{ caller() if caller is defined else 'no caller' }}{% endmacro %}{{ m() }}{% call m() %}C{{ n }}{% endcall %}
{% macro m(xs) %}{% for x in xs %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(a, b=0) m([7, 8]) %}{{ a }}:{{ b }};{% endcall %}
{% macro outer() %}{% macro inner() %}I{{ n }}{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}{{ inner is defined }}
{% macro m() %}{{ late }}{% endmacro %}{{ m() }}{% set late = 'L' %}{{ m() }}
{% set ns = namespace(f=none) %}{% macro m(x) %}<{{ x }}>{% endmacro %}{% set ns.f = m %}{{ ns.f(3) }}
{% macro m() %}{{ loop is defined }}{% endmacro %}{% for x in [1] %}{{ m() }}{% endfor %}
{% macro m(a) %}{% set a = a ~ '!' %}{{ a }}{% endmacro %}{{ m('x') }}{{ m('y')|upper }}{{ m('<') ~ m('>') }}
{{ m() }}{% macro m() %}x{% endmacro %}
{% filter upper %}a{{ s }}{% endfilter %}{% filter replace('a', 'b')|trim|length %} aa {% endfilter %}
{% with %}{{ n }}{% endwith %}{% with x = n + 1, y = 2 %}{{ x }}{{ y }}{% set n = 0 %}{{ n }}{% endwith %}{{ n }}{{ x }}
{% generation %}a{{ n }}{% endgeneration %}b{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}
{% raw %}{{ x }}{% y %}{# z #}{% endraw %}|{%- raw -%} a {%- endraw -%} | {% raw +%}
{% raw %} {{ }} {%- endraw %}
{# comment {{ x }} #}a{#- b -#} c {#+ d +#}
{% unknown_tag %}
{% do xs.append(1) %}
{% include 'x' %}
{% if n %}
{% for x in xs %}{% endif %}
{% endfor %}
{% if %}{% endif %}
{% for in xs %}{% endfor %}
{% set %}{% endset %}
{% set x = %}
{{ }}
{{ 1 }
{% if n
{{ n }} }} %} #}
{{ '}}' }}{{ "%}" }}{{ {'a': {'b': 1}} }}{{ {'a':{'b':1}}['a']}}
{{ n -}}   x   {{- n }}  {{+ n }}
{{ 1 }}{%- if yes %} a {%- endif -%} b {%+ if yes %}c{% endif +%} d
{{n}}{{s}}{{ n}}
{% print n, s %}{% print %}
{% set a = 'x' -%}   {{ a }}
{{ [1,2,3] | map('string') | join( ',' ) }}
{{ n if n is odd else s }}{{ s if n is even }}
{{ "multi<newline>line" }}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for k, v in d|items %}{{ loop.last }}{% endfor %}
{% set xs = xs + [4] %}{{ xs }}{% set s = s ~ '!' %}{{ s }}
{% set gen = xs|map('string') %}{{ gen|list }}{{ gen|list }}
{{ loop }}
{{ varargs }}{{ caller }}{{ kwargs }}
{{ cycler('a', 'b').next() }}{{ joiner()() }}|
{{ cycler() }}
{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}
{{ range }}
{{ xs|map('string') }}
"""

WHITESPACE = [
    "  {% if yes %}\n  a\n  {% endif %}\n b", "a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\n\n", "a\n", "\n", "", " ", "\r\na\r\rb\n\r\n",
    "{% if yes %}\r\nx{% endif %}\r\n", "\t{% set x = 1 %}  \n {{ x }}\n  {# c #}\n  z", "x  {% if yes %}  y  {% endif %}  z",
    "x\n  {%- if yes %}\n  y\n  {%- endif %}\n  z", "x\n  {% if yes -%}\n  y\n  {% endif -%}\n  z", "x\n  {%+ if yes +%}\n  y\n  {%+ endif +%}\n  z",
    "x\n  {{ n }}\n  {{- n -}}\n  z", "x\n  {#- c -#}\n  z", "x\n  {#+ c +#}\n  z", "x\n  {# c #}\n\n  z", "{# c #}\n{# d #}\nz",
    "  {% raw %}\n  {{ x }}\n  {% endraw %}\n  z", "a {%- raw %}  b  {% endraw -%}  c", "a\n  {% raw -%}\n  b\n  {%- endraw %}\n  c",
    "\u00a0\u3000{% if yes %}a{% endif %}", "a\u00a0{%- if yes %}b{% endif %}", "a\u2028{% if yes %}b{% endif %}", "\x0b\x0c{% if yes %}x{% endif %}\x1c{%- if yes %}y{% endif %}",
    "{% if yes %}a{% endif %}  {% if yes %}b{% endif %}\n   {% if yes %}c{% endif %}", "{{ n }}\n{{ n }}\n\n{{ n }}\n", "{% for x in xs %}\n  - {{ x }}\n{% endfor %}\n",
    "{% for x in xs %}\n  {% if x > 1 %}\n    {{ x }}\n  {% endif %}\n{% endfor %}\nend", "{%if yes%}a{%endif%}", "{%-if yes-%} a {%-endif-%}", "{{'a'}}{{-'b'-}}",
    "{% set x %}\n  a\n{% endset %}\n[{{ x }}]", "{% macro m() %}\n  a\n{% endmacro %}\n[{{ m() }}]", "{ {x} } {x} % } {", "{", "{a}", "100%", "# {#x#} #",
]


def split(line):
    """The expressions between a line's top-level commas: one case each."""
    out, start, depth, quote, i = [], 0, 0, None, 0
    while i < len(line):
        c = line[i]
        if quote:
            i += c == "\\"
            quote = None if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            out.append(line[start:i].strip())
            start = i + 1
        i += 1
    out.append(line[start:].strip())
    return [line] if quote or depth or not all(out) else out


def cases():
    for line in EXPRESSIONS.strip("\n").split("\n"):
        line = line.replace("<newline>", "\n")
        if "{{" in line or "{%" in line or "{#" in line:
            yield line
        else:
            yield from ("{{ " + expression + " }}" for expression in split(line))
    yield from WHITESPACE
