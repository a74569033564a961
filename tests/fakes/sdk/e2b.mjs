// SPDX-License-Identifier: Apache-2.0
// The whole of a sandbox's life by E2B's own client. Ends with "proved".
import assert from 'node:assert/strict';
import { Sandbox } from 'e2b';

const box = await Sandbox.create({
  timeoutMs: 600_000, metadata: { proof: 'a b&c' }, envs: { FROM_CREATE: 'yes' },
});

// commands: both streams as they come, the exit code, stdin, a user, a time-out, a signal
const seen = { out: '', err: '' };
const both = await box.commands.run('echo out; echo err >&2; echo $FROM_CREATE-$FROM_RUN', {
  envs: { FROM_RUN: 'too' },
  onStdout: (text) => { seen.out += text; },
  onStderr: (text) => { seen.err += text; },
});
assert.deepEqual([both.exitCode, both.stdout, both.stderr], [0, 'out\nyes-too\n', 'err\n']);
assert.deepEqual(seen, { out: 'out\nyes-too\n', err: 'err\n' });
await assert.rejects(box.commands.run('exit 3'), (error) => error.exitCode === 3);
assert.equal((await box.commands.run('id -un; pwd')).stdout, 'user\n/home/user\n');
const big = await box.commands.run('head -c 3000000 /dev/zero | tr "\\0" x');
assert.equal(big.stdout.length, 3000000);
const reader = await box.commands.run('cat; echo end', { background: true, stdin: true });
await box.commands.sendStdin(reader.pid, 'given\n');
await box.commands.closeStdin(reader.pid);
assert.equal((await reader.wait()).stdout, 'given\nend\n');
const sleeper = await box.commands.run('sleep 1000', { background: true });
assert.ok((await box.commands.list()).some((each) => each.pid === sleeper.pid));
const again = await box.commands.connect(sleeper.pid);
assert.equal(await sleeper.kill(), true);
await assert.rejects(again.wait());
await assert.rejects(box.commands.run('sleep 100', { timeoutMs: 300 }), /deadline|timed?.?out/i);

// files
await box.files.write('/home/user/dir/a.txt', 'hello\n');
await box.files.write([{ path: 'b.bin', data: new Uint8Array([0, 255, 10]).buffer },
  { path: 'c.txt', data: 'c' }]);
await box.files.write('octets', 'as octets', { useOctetStream: true });
await box.files.write('packed', 'x'.repeat(100000), { useOctetStream: true, gzip: true });
assert.equal(await box.files.read('/home/user/dir/a.txt'), 'hello\n');
assert.equal((await box.files.read('packed', { gzip: true })).length, 100000);
assert.deepEqual([...await box.files.read('b.bin', { format: 'bytes' })], [0, 255, 10]);
assert.equal((await box.commands.run('cat dir/a.txt octets; stat -c %U c.txt')).stdout,
  'hello\nas octetsuser\n');
assert.equal(await box.files.makeDir('made/deep'), true);
assert.equal(await box.files.makeDir('made/deep'), false);
await box.commands.run('ln -s /home/user/dir/a.txt link; ln -s nowhere dangling; chmod 4755 c.txt');
const names = (await box.files.list('/home/user')).map((each) => each.name);
// the client itself leaves out what has no type: the dangling link
assert.deepEqual(names, ['b.bin', 'c.txt', 'dir', 'link', 'made', 'octets', 'packed']);
assert.equal((await box.files.list('/home', { depth: 2 })).some((each) => each.path === '/home/user/link'), true);
const link = await box.files.getInfo('link');
assert.deepEqual([link.type, link.symlinkTarget, link.size, link.permissions],
  ['file', '/home/user/dir/a.txt', 20, 'Lrwxrwxrwx']);
assert.equal((await box.files.getInfo('c.txt')).permissions, 'urwxr-xr-x');
await box.files.rename('dir/a.txt', 'made/new/a.txt');
assert.equal(await box.files.exists('dir/a.txt'), false);
await assert.rejects(box.files.rename('octets', 'dir'), /file exists/);
await assert.rejects(box.files.read('none'), /does not exist/);
await box.files.remove('made');
await box.files.remove('made');
assert.equal(await box.files.exists('made'), false);

// watching
const events = [];
const watch = await box.files.watchDir('/home/user/dir', (event) => events.push(event));
await box.commands.run('echo 1 > dir/watched');
for (let i = 0; i < 100 && !events.some((each) => each.type === 'write'); i++) {
  await new Promise((done) => { setTimeout(done, 50); });
}
assert.ok(events.some((each) => each.type === 'create' && each.name === 'watched'));
assert.ok(events.some((each) => each.type === 'write'));
await watch.stop();

// a terminal
let typed = '';
const pty = await box.pty.create({ cols: 80, rows: 24, onData: (data) => { typed += Buffer.from(data); } });
await box.pty.sendInput(pty.pid, Buffer.from('echo $((40 + 2)) tty; exit\n'));
await pty.wait();
assert.match(typed, /42 tty/);

// its life
const info = await box.getInfo();
assert.deepEqual([info.state, info.metadata], ['running', { proof: 'a b&c' }]);
const found = await Sandbox.list({ query: { metadata: { proof: 'a b&c' } }, limit: 1 }).nextItems();
assert.deepEqual(found.map((each) => each.sandboxId), [box.sandboxId]);
const none = await Sandbox.list({ query: { metadata: { proof: 'other' } } }).nextItems();
assert.equal(none.length, 0);
const counter = await box.commands.run('while sleep 0.05; do date +%N > ticks; done', { background: true });
await box.setTimeout(300_000);
assert.equal(await box.pause(), true);
assert.equal(await Sandbox.pause(box.sandboxId), false);
assert.equal((await Sandbox.getInfo(box.sandboxId)).state, 'paused');
assert.equal(await box.isRunning(), false);
await assert.rejects(counter.wait());
const back = await Sandbox.connect(box.sandboxId, { timeoutMs: 60_000 });
assert.equal(await back.files.read('octets'), 'as octets');
assert.ok((await back.commands.list()).some((each) => each.pid === counter.pid), 'memory is kept');
assert.equal(await back.commands.kill(counter.pid), true);
const snapshot = await back.createSnapshot();
const copy = await Sandbox.create(snapshot.snapshotId);
assert.equal(await copy.files.read('octets'), 'as octets');
assert.equal(await copy.kill(), true);
assert.equal(await back.kill(), true);
assert.equal(await back.kill(), false);
await assert.rejects(Sandbox.getInfo(box.sandboxId), /not found/);
console.log('proved');
