// SPDX-License-Identifier: Apache-2.0
// A service's own client at work: one process, told by a line of JSON on stdin, which answers with one of them.
//
//   node bench_http.mjs e2b|daytona|opensandbox
//   {"do": "create"}                                             -> {"id": ...}: a sandbox, and one command in it
//   {"do": "put", "from": DIR, "to": DIR, "way": "each|bulk"}    -> {"ms": ..., "files": N}; likewise get, list
//   {"do": "exec", "command": ...}                               -> {"ms": ...}
//   {"do": "kill"}                                               -> {}
//
// `each` awaits one call after the other, as the first example of every manual does; `bulk` is the client's own call
// for many files, and where it has none, AT_ONCE calls at a time.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import fs from 'node:fs/promises';
import path from 'node:path';

const AT_ONCE = 16;
const DEEP = 20; // more levels than there are
const write = process.stdout.write.bind(process.stdout);
console.log = console.error; // stdout is for answers

// -- the clients: put, get (a pair each), putAll, getAll (pairs), list (a directory -> [path, is a directory]), listAll

function exact(buffer) {
  const whole = buffer.buffer;
  return whole.byteLength === buffer.byteLength ? whole
    : whole.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength);
}

async function e2b() {
  const { Sandbox } = await import('e2b');
  const box = await Sandbox.create({ timeoutMs: 1_800_000 });
  const entries = (found) => found.map((each) => [each.path, each.type === 'dir']);
  return {
    id: box.sandboxId,
    put: async ([from, to]) => box.files.write(to, exact(await fs.readFile(from))),
    putAll: async (pairs) => box.files.write(await Promise.all(
      pairs.map(async ([from, to]) => ({ path: to, data: exact(await fs.readFile(from)) })))),
    get: async ([from, to]) => fs.writeFile(to, await box.files.read(from, { format: 'bytes' })),
    list: async (dir) => entries(await box.files.list(dir)),
    listAll: async (dir) => entries(await box.files.list(dir, { depth: DEEP })),
    exec: async (command) => box.commands.run(command),
    kill: async () => box.kill(),
  };
}

async function daytona() {
  const { Daytona } = createRequire(import.meta.url)('@daytonaio/sdk');
  const box = await new Daytona().create();
  return {
    id: box.id,
    put: async ([from, to]) => box.fs.uploadFile(from, to),
    putAll: async (pairs) => box.fs.uploadFiles(pairs.map(([from, to]) => ({ source: from, destination: to }))),
    get: async ([from, to]) => box.fs.downloadFile(from, to),
    getAll: async (pairs) => {
      const done = await box.fs.downloadFiles(pairs.map(([from, to]) => ({ source: from, destination: to })));
      const failed = done.find((each) => each.error);
      if (failed) throw new Error(`${failed.source}: ${failed.error}`);
    },
    list: async (dir) => (await box.fs.listFiles(dir)).map((each) => [path.join(dir, each.name), each.isDir]),
    exec: async (command) => {
      const done = await box.process.executeCommand(command);
      if (done.exitCode !== 0) throw new Error(`${command}: exit ${done.exitCode}`);
    },
    kill: async () => box.delete(),
  };
}

async function opensandbox() {
  const { Sandbox } = await import('@alibaba-group/opensandbox');
  const box = await Sandbox.create({ image: 'debian:12', timeoutSeconds: 1800 });
  const entries = (found) => found.map((each) => [each.path, each.type === 'directory']);
  const file = async ([from, to]) => ({ path: to, data: await fs.readFile(from) });
  return {
    id: box.id,
    put: async (pair) => box.files.writeFiles([await file(pair)]),
    putAll: async (pairs) => box.files.writeFiles(await Promise.all(pairs.map(file))),
    get: async ([from, to]) => fs.writeFile(to, await box.files.readBytes(from)),
    list: async (dir) => entries(await box.files.listDirectory({ path: dir, depth: 1 })),
    listAll: async (dir) => entries(await box.files.listDirectory({ path: dir, depth: DEEP })),
    exec: async (command) => {
      const done = await box.commands.run(command);
      if (done.exitCode !== 0) throw new Error(`${command}: exit ${done.exitCode}`);
    },
    kill: async () => { await box.kill(); await box.close(); },
  };
}

// -- the work

/** Do `one` for each of `all`, AT_ONCE at a time. */
async function atOnce(all, one) {
  let next = 0;
  const worker = async () => { while (next < all.length) await one(all[next++]); };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

async function inTurn(all, one) {
  for (const each of all) await one(each);
}

/** Paths of the files below, by one listing a directory; `way` is atOnce or inTurn. */
async function walk(dir, list, way) {
  const found = [];
  for (let level = [dir]; level.length;) {
    const deeper = [];
    await way(level, async (each) => {
      for (const [name, isDir] of await list(each)) (isDir ? deeper : found).push(name);
    });
    level = deeper;
  }
  return found;
}

async function localFiles(top) {
  if ((await fs.stat(top)).isFile()) return [top];
  return walk(top, async (dir) => (await fs.readdir(dir, { withFileTypes: true })).map(
    (each) => [path.join(dir, each.name), each.isDirectory()]), inTurn);
}

const pairsOf = (files, from, to) => files.map((name) => [name, path.join(to, path.relative(from, name))]);

async function put(client, { from, to, way }) {
  const pairs = pairsOf(await localFiles(from), from, to);
  await (way === 'bulk' ? client.putAll(pairs) : inTurn(pairs, client.put));
  return pairs.length;
}

async function list(client, { from, way }) {
  if (way === 'each') return walk(from, client.list, inTurn);
  if (!client.listAll) return walk(from, client.list, atOnce);
  return (await client.listAll(from)).filter(([, isDir]) => !isDir).map(([name]) => name);
}

/** `files`: names below `from`; none: `from` is a file. */
async function get(client, { from, to, files, way }) {
  const pairs = files ? files.map((name) => [path.join(from, name), path.join(to, name)]) : [[from, to]];
  for (const dir of new Set(pairs.map(([, each]) => path.dirname(each)))) await fs.mkdir(dir, { recursive: true });
  if (way === 'each') await inTurn(pairs, client.get);
  else await (client.getAll ? client.getAll(pairs) : atOnce(pairs, client.get));
  return pairs.length;
}

const WORK = {
  put,
  get,
  list: async (client, order) => (await list(client, order)).length,
  exec: async (client, { command }) => { await client.exec(command); return 0; },
};

let client;

async function obey(order) {
  if (order.do === 'create') {
    client = await { e2b, daytona, opensandbox }[process.argv[2]]();
    await client.exec('true');
    return { id: client.id };
  }
  if (order.do === 'kill') {
    await client.kill();
    return {};
  }
  const start = performance.now();
  const files = await WORK[order.do](client, order);
  return { ms: performance.now() - start, files };
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = await obey(JSON.parse(line));
  } catch (error) {
    answer = { error: String(error?.stack ?? error).slice(0, 2000) };
  }
  write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
