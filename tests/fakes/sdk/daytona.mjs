// SPDX-License-Identifier: Apache-2.0
// The whole of a sandbox's life by Daytona's own client. Ends with "proved".
// Its argument is the toolbox's version: what the client needs a newer one for is left out.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const { Daytona } = createRequire(import.meta.url)('@daytonaio/sdk');
const isNew = process.argv[2] !== '0.190.0';
const daytona = new Daytona();
const box = await daytona.create({
  name: 'proof', envVars: { FROM_CREATE: 'yes' }, labels: { proof: 'one' }, autoStopInterval: 30,
});
assert.equal(box.state, 'started');

// commands: the output, the exit code, a directory, an environment, a time-out
const both = await box.process.executeCommand('echo out; echo err >&2; echo $FROM_CREATE-$FROM_RUN; pwd',
  '/tmp', { FROM_RUN: 'too' });
assert.deepEqual([both.exitCode, both.result], [0, 'out\nerr\nyes-too\n/tmp\n']);
assert.equal((await box.process.executeCommand('exit 3')).exitCode, 3);
await assert.rejects(box.process.executeCommand('sleep 100', undefined, undefined, 1), /timed?.?out/i);
assert.equal((await box.process.executeCommand('nothing', '/nonexist')).exitCode, -1);

// sessions: both streams apart, as they come, with input
await box.process.createSession('one');
const sync = await box.process.executeSessionCommand('one', { command: 'export KEPT=here; echo hi; echo no >&2' });
assert.deepEqual([sync.stdout, sync.stderr, sync.exitCode], ['hi\n', 'no\n', 0]);
const kept = await box.process.executeSessionCommand('one', { command: 'echo $KEPT; (exit 4)' });
assert.deepEqual([kept.stdout, kept.exitCode], ['here\n', 4]);
const begun = await box.process.executeSessionCommand('one', {
  command: 'read line; echo "got $line"; echo bad >&2', runAsync: true,
});
let [out, err] = ['', ''];
const followed = box.process.getSessionCommandLogs('one', begun.cmdId,
  (text) => { out += text; }, (text) => { err += text; });
await box.process.sendSessionCommandInput('one', begun.cmdId, 'given');
await followed;
assert.deepEqual([out, err], ['given\ngot given\n', 'bad\n']);
assert.equal((await box.process.getSessionCommand('one', begun.cmdId)).exitCode, 0);
assert.equal((await box.process.getSessionCommandLogs('one', begun.cmdId)).stderr, 'bad\n');
assert.equal((await box.process.getSession('one')).commands.length, 3);
await assert.rejects(box.process.createSession('one'));
await box.process.deleteSession('one');
assert.deepEqual(await box.process.listSessions(), []);

// a terminal
if (isNew) {
  let typed = '';
  const pty = await box.process.createPty({
    id: 'tty', envs: { IN_TTY: 'set' }, onData: (data) => { typed += Buffer.from(data); },
  });
  await pty.waitForConnection();
  await pty.sendInput('echo $((40 + 2)) $IN_TTY; exit 5\n');
  const end = await pty.wait();
  assert.equal(end.exitCode, 5);
  assert.match(typed, /42 set/);
}

// files
const home = await box.getUserHomeDir();
assert.equal(home, '/home/daytona');
assert.equal(await box.getWorkDir(), home);
await box.fs.createFolder(`${home}/dir`, '755');
await box.fs.uploadFile(Buffer.from('hello\n'), `${home}/dir/a.txt`);
await box.fs.uploadFiles([{ source: Buffer.from([0, 255, 10]), destination: `${home}/dir/b.bin` },
  { source: Buffer.from('c'), destination: `${home}/new/deep/c.txt` }]);
assert.equal(String(await box.fs.downloadFile(`${home}/dir/a.txt`)), 'hello\n');
const many = await box.fs.downloadFiles([{ source: `${home}/dir/b.bin` }, { source: `${home}/none` }]);
assert.deepEqual([[...many[0].result], many[1].result], [[0, 255, 10], undefined]);
assert.match(many[1].error, /no such file/);
assert.equal((await box.process.executeCommand('cat dir/a.txt new/deep/c.txt; stat -c %U dir/a.txt')).result,
  'hello\ncdaytona\n');
await box.process.executeCommand('cd dir; ln -s a.txt link; ln -s nowhere dangling');
const listed = await box.fs.listFiles(`${home}/dir`);
assert.deepEqual(listed.map((each) => [each.name, each.size, each.isDir]),
  [['a.txt', 6, false], ['b.bin', 3, false], ['link', 6, false]]);
await box.fs.setFilePermissions(`${home}/dir/a.txt`, { mode: '640' });
const info = await box.fs.getFileDetails(`${home}/dir/a.txt`);
assert.deepEqual([info.mode, info.permissions, info.owner], ['-rw-r-----', '0640', '1000']);
await box.fs.moveFiles(`${home}/dir/a.txt`, `${home}/dir/d.txt`);
await assert.rejects(box.fs.moveFiles(`${home}/dir/d.txt`, `${home}/dir/b.bin`), (error) => error.statusCode === 409);
assert.deepEqual((await box.fs.searchFiles(home, '*.txt')).files, [`${home}/dir/d.txt`, `${home}/new/deep/c.txt`]);
assert.deepEqual(await box.fs.findFiles(`${home}/dir`, 'hell'), [{ file: `${home}/dir/d.txt`, line: 1, content: 'hello' }]);
await box.fs.replaceInFiles([`${home}/dir/d.txt`], 'hello', 'bye');
assert.equal(String(await box.fs.downloadFile(`${home}/dir/d.txt`)), 'bye\n');
await box.fs.deleteFile(`${home}/dir/d.txt`);
await assert.rejects(box.fs.deleteFile(`${home}/dir`), (error) => error.statusCode === 400);
await box.fs.deleteFile(`${home}/dir`, true);
await assert.rejects(box.fs.getFileDetails(`${home}/dir`), (error) => error.statusCode === 404);

// its life
const names = [];
for (let i = 0; i < 100 && names.length === 0; i++) { // the list lags behind
  for await (const each of daytona.list({ labels: { proof: 'one' } })) names.push(each.name);
}
assert.deepEqual(names, ['proof']);
assert.equal((await daytona.get('proof')).id, box.id);
await assert.rejects(daytona.create({ name: 'proof' }), (error) => error.statusCode === 409);
await box.setLabels({ proof: 'two' });
await box.setAutostopInterval(60);
await box.process.executeCommand('(while sleep 0.05; do date +%N > ticks; done) >/dev/null 2>&1 & echo $! > pid');
await box.pause();
assert.equal(box.state, 'paused');
await assert.rejects(box.process.executeCommand('true'));
await box.start();
assert.equal((await box.process.executeCommand('kill -0 $(cat pid) && echo lives')).result, 'lives\n');
await box.stop();
assert.equal(box.state, 'stopped');
await box.start();
assert.equal((await box.process.executeCommand('cat new/deep/c.txt; kill -0 $(cat pid) 2>&1 || echo " gone"')).result
  .endsWith(' gone\n'), true);
await box.delete();
for (let i = 0; i < 200; i++) {
  try { await box.refreshData(); } catch (error) { assert.equal(error.statusCode, 404); break; }
}
await assert.rejects(daytona.create({ image: 'no-such-image:1' }), /failed|build/i);
const built = await daytona.create({ image: 'debian:12', resources: { cpu: 2, memory: 4, disk: 8 } });
assert.equal(built.memory, 4);
await assert.rejects(built.pause(), (error) => error.statusCode === 422);
await built.delete();
console.log('proved');
process.exit(0);
