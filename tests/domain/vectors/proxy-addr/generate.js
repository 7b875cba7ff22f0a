// Makes cases.txt: 10 000 random requests, and which address proxy-addr (of Express) takes for the client's.
//
//     npm install proxy-addr@2.0.8      (in a folder outside of this repository)
//     NODE_PATH=that/folder/node_modules node generate.js > cases.txt
//
// The numbers are pseudo-random from a fixed seed, so the same versions make the same file: proxy-addr 2.0.8 with
// forwarded 0.2.0 and ipaddr.js 1.9.1.
//
// Lines of the file: `# comment`; `trust NUMBER RANGE RANGE …`; and one line a case, separated by `|`: the number of
// the trusted ranges, the peer, `-` or `=` and the value of X-Forwarded-For (a tab as \t), the answer.

'use strict'

const proxyaddr = require('proxy-addr')

let state = 20260721
// mulberry32
function random () {
  state = (state + 0x6d2b79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}
const below = (n) => Math.floor(random() * n)
const pick = (list) => list[below(list.length)]
const chance = (share) => random() < share

const TRUST = [
  ['127.0.0.1'],
  ['10.0.0.0/8'],
  ['10.0.0.0/8', '192.168.0.0/16', '127.0.0.0/8'],
  ['192.0.2.0/24', '198.51.100.7'],
  ['10.1.2.3/12', '203.0.113.128/25'],
  ['2001:db8::/32'],
  ['2001:db8:1::/48', '10.0.0.0/8'],
  ['fc00::/7', 'fe80::/10', '::1'],
  ['::ffff:10.0.0.1', '172.16.0.0/12'],
  ['::ffff:10.0.0.0/104', '2001:db8::/33'],
  ['::ffff:0.0.0.0/96'],
  ['::/1', '2001:db8::5'],
  ['::/8', '10.0.0.0/9'],
  ['0.0.0.0/1'],
  ['128.0.0.0/1', '10.0.0.1'],
  ['2001:db8::1', '2001:db8::2', '10.0.0.1', '10.0.0.2'],
  ['198.51.100.0/31', '2001:db8::/127'],
  ['::ffff:0:0/80', '10.0.0.0/24'],
  ['::ffff:0:0/80']
]

const V4 = ['10.0.0.1', '10.0.0.2', '10.1.2.3', '10.255.255.255', '11.0.0.0', '127.0.0.1', '192.168.7.9', '192.0.2.44',
  '198.51.100.7', '198.51.100.8', '203.0.113.127', '203.0.113.128', '172.16.9.9', '172.32.0.1', '8.8.8.8', '1.1.1.1',
  '255.255.255.255', '0.0.0.0', '128.0.0.1', '64.1.2.3']
const V6 = ['2001:db8::1', '2001:db8::2', '2001:db8::5', '2001:db8:1::9', '2001:db8:8000::1', '2001:db9::1', '::1', '::',
  'fe80::1', 'fd00::7', '2606:4700::1111', '4000::1', '2001:DB8:0:0:0:0:0:1', '2001:db8:0:0::192.0.2.1', '64:ff9b::a00:1']
const GARBAGE = ['unknown', '_hidden', 'garbage', '', ' ', 'a b', '10.0.0', '10.0.0.1.5', '256.1.1.1', '10.0.0.1/8',
  '010.0.0.1', '0x0a000001', '167772161', '10.1', '2001:db8::1::2', ':::', '12345::', '[2001:db8::1', '2001:db8::1]',
  'fe80::1%eth0', '"10.0.0.1"', 'for=10.0.0.1', '10.0.0.1;', '10.0.0.\u00e9', '-1', 'localhost', '::ffff:10.0.0.999',
  '10.0.0.1:99999', '10.0.0.1:', '10.0.0.1:http', '[10.0.0.1]', '[2001:db8::1]x', '[]', '[::1]:']

const v4 = () => chance(0.8) ? pick(V4) : [below(256), below(256), below(256), below(256)].join('.')
const v6 = () => chance(0.8)
  ? pick(V6)
  : Array.from({ length: 8 }, () => below(65536).toString(16)).join(':')
const mapped = () => chance(0.5)
  ? '::ffff:' + v4()
  : '::FFFF:' + v4().split('.').map(Number).reduce((hex, n, i) =>
      hex + (i === 2 ? ':' : '') + n.toString(16).padStart(2, '0'), '')
const withPort = () => {
  const port = 1 + below(65535)
  return chance(0.5) ? v4() + ':' + port : '[' + v6() + ']' + (chance(0.7) ? ':' + port : '')
}

// The members of a set of ranges are met often enough for chains to be walked.
const MEMBERS = TRUST.map((ranges) => {
  const trust = proxyaddr.compile(ranges)
  return [...V4, ...V6, ...V4.map((a) => '::ffff:' + a)].filter((address) => trust(address, 0))
})
const member = (set) => MEMBERS[set].length ? pick(MEMBERS[set]) : v4()

function hop (set) {
  const kind = random()
  if (kind < 0.45) return member(set)
  if (kind < 0.65) return v4()
  if (kind < 0.78) return v6()
  if (kind < 0.85) return mapped()
  if (kind < 0.92) return withPort()
  return pick(GARBAGE)
}

function header (set) {
  if (chance(0.06)) return undefined
  if (chance(0.02)) return pick(['', ' ', ',', ', ,'])
  const few = 1 + below(4)
  const hops = Array.from({ length: chance(0.03) ? 20 + below(20) : few }, () => chance(0.2) ? member(set) : hop(set))
  return hops.reduce((text, next) => text + (chance(0.02) ? ',\t' : pick([', ', ', ', ',', ' , ', ',  '])) + next)
}

const lines = [
  '# Which address proxy-addr 2.0.8 takes for the client\'s. Made by generate.js; see there for how to read it.'
]
TRUST.forEach((ranges, number) => lines.push(`trust ${number} ${ranges.join(' ')}`))
const seen = new Set()
while (seen.size < 10000) {
  const set = below(TRUST.length)
  const peer = chance(0.8) ? member(set) : pick([v4, v6, mapped])()
  const value = header(set)
  const headers = value === undefined ? {} : { 'x-forwarded-for': value }
  const answer = proxyaddr({ headers, socket: { remoteAddress: peer } }, TRUST[set])
  const told = value === undefined ? '-' : '=' + value
  if ([peer, told, answer].some((text) => /[|\n\r\\]/.test(text))) throw new Error('cannot be written')
  const line = [set, peer, told, answer].join('|').replace(/\t/g, '\\t')
  if (!seen.has(line)) {
    seen.add(line)
    lines.push(line)
  }
}
process.stdout.write(lines.join('\n') + '\n')
