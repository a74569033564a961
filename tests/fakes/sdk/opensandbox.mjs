// SPDX-License-Identifier: Apache-2.0
// The whole of a sandbox's life by OpenSandbox's own client. Ends with "proved".
import assert from 'node:assert/strict';
import { ConnectionConfig, Sandbox, SandboxManager } from '@alibaba-group/opensandbox';

const connectionConfig = new ConnectionConfig({ useServerProxy: process.argv.includes('proxy') });
const box = await Sandbox.create({
  connectionConfig, image: 'debian:12', timeoutSeconds: 600, env: { FROM_CREATE: 'yes' },
  metadata: { proof: 'one' }, resource: { cpu: '500m', memory: '256Mi' },
});
const text = (messages) => messages.map((each) => each.text);

// commands: both streams as they come, the exit code, a directory, an environment, a time-out
const seen = { out: [], err: [] };
const both = await box.commands.run('echo out; echo; echo err >&2; echo $FROM_CREATE-$FROM_RUN; pwd', {
  envs: { FROM_RUN: 'too' }, workingDirectory: '/tmp',
}, {
  onStdout: (message) => { seen.out.push(message.text); },
  onStderr: (message) => { seen.err.push(message.text); },
});
assert.equal(both.exitCode, 0);
assert.deepEqual(text(both.logs.stdout), ['out', '\n', 'yes-too', '/tmp']);
assert.deepEqual(seen, { out: ['out', '\n', 'yes-too', '/tmp'], err: ['err'] });
const failed = await box.commands.run('exit 3');
assert.deepEqual([failed.exitCode, failed.error.name, failed.error.value], [3, 'CommandExecError', '3']);
const late = await box.commands.run('sleep 100', { timeoutSeconds: 1 });
assert.equal(late.error.value, '-1');
const behind = await box.commands.run('echo begun; sleep 1000', { background: true });
for (let logs = { content: '' }; !logs.content.includes('begun');) {
  logs = await box.commands.getBackgroundCommandLogs(behind.id, 0);
}
assert.equal((await box.commands.getCommandStatus(behind.id)).running, true);
await box.commands.interrupt(behind.id);
assert.equal((await box.commands.getCommandStatus(behind.id)).running, false);
const session = await box.commands.createSession({ workingDirectory: '/tmp/deep/er' });
await box.commands.runInSession(session, 'export KEPT=here; cd ..; echo to stderr >&2');
const kept = await box.commands.runInSession(session, 'echo $KEPT; pwd; exit 4');
assert.deepEqual([text(kept.logs.stdout), kept.error.value], [['here', '/tmp/deep'], '4']);
await box.commands.deleteSession(session);

// files
await box.files.createDirectories([{ path: '/tmp/dir', mode: 755 }]);
await box.files.writeFiles([
  { path: '/tmp/dir/a.txt', data: 'hello\n', mode: 644 },
  { path: '/tmp/dir/b.bin', data: new Uint8Array([0, 255, 10]) },
]);
async function* pieces() { yield Buffer.from('one '); yield Buffer.from('two'); }
await box.files.writeFiles([{ path: '/tmp/dir/streamed', data: pieces(), mode: 600 }]);
assert.equal(await box.files.readFile('/tmp/dir/a.txt'), 'hello\n');
assert.equal(await box.files.readFile('/tmp/dir/a.txt', { range: 'bytes=1-3' }), 'ell');
assert.deepEqual([...await box.files.readBytes('/tmp/dir/b.bin')], [0, 255, 10]);
const there = await box.commands.run('cd /tmp/dir; cat a.txt streamed; stat -c %a *');
assert.deepEqual(text(there.logs.stdout), ['hello', 'one two644', '755', '600']);
await box.commands.run('cd /tmp/dir; ln -s a.txt link; ln -s nowhere dangling');
const listed = await box.files.listDirectory({ path: '/tmp/dir', depth: 1 });
assert.deepEqual(listed.map((each) => [each.path.slice(9), each.type]), [['a.txt', 'file'],
  ['b.bin', 'file'], ['dangling', 'symlink'], ['link', 'symlink'], ['streamed', 'file']]);
const info = (await box.files.getFileInfo(['/tmp/dir/a.txt']))['/tmp/dir/a.txt'];
assert.deepEqual([info.size, info.mode, info.owner], [6, 644, 'root']);
assert.deepEqual((await box.files.search({ path: '/tmp', pattern: '*.txt' })).map((each) => each.path),
  ['/tmp/dir/a.txt']);
await box.files.replaceContents([{ path: '/tmp/dir/a.txt', oldContent: 'hello', newContent: 'bye' }]);
await box.files.moveFiles([{ src: '/tmp/dir/a.txt', dest: '/tmp/new/c.txt' }]);
assert.equal(await box.files.readFile('/tmp/new/c.txt'), 'bye\n');
await assert.rejects(box.files.moveFiles([{ src: '/tmp/new/c.txt', dest: '/tmp/dir/b.bin' }]));
await box.files.setPermissions([{ path: '/tmp/new/c.txt', mode: 640 }]);
await box.files.deleteFiles(['/tmp/new/c.txt', '/tmp/none']);
await box.files.deleteDirectories(['/tmp/dir', '/tmp/none']);
await assert.rejects(box.files.getFileInfo(['/tmp/dir']), (error) => error.statusCode === 404);
assert.ok((await box.getMetrics()).cpuCount > 0);

// its life
const manager = SandboxManager.create({ connectionConfig });
const found = await manager.listSandboxInfos({ metadata: { proof: 'one' }, states: ['Running'] });
assert.deepEqual(found.items.map((each) => each.id), [box.id]);
await box.renew(1200);
const counter = await box.commands.run('while sleep 0.05; do date +%N >/tmp/ticks; done', { background: true });
await box.pause();
assert.equal((await box.getInfo()).status.state, 'Paused');
await assert.rejects(box.pause());
const back = await box.resume();
assert.equal((await back.getInfo()).status.state, 'Running');
assert.equal((await back.commands.getCommandStatus(counter.id)).running, true);
await assert.rejects(Sandbox.resume({ sandboxId: box.id, connectionConfig }));
await back.kill();
await assert.rejects(manager.getSandboxInfo(box.id), (error) => error.statusCode === 404);
await assert.rejects(Sandbox.create({ connectionConfig, image: 'no-such-image' }));
await manager.close();
await back.close();
console.log('proved');
process.exit(0);
