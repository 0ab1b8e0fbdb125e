// Stock @grpc/grpc-js against net/, health and reflection (the echo server).
//
//     node test_grpc_node.js ECHO_SERVER PROTO_DIR
'use strict';
const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [echoServer, protoDir] = process.argv.slice(2);
const status = grpc.status;
const raw = (x) => x;

function start(args) {
  const child = spawn(echoServer, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.stdout.once('data', (data) => {
      const match = /^listening (\S+)/.exec(String(data));
      if (match) resolve({ child, ended, address: match[1] });
      else reject(new Error(String(data)));
    });
  });
}

const echo = (kind) => ({
  path: `/test.Echo/${kind}`,
  serialize: raw,
  deserialize: raw,
});

function unary(client, kind, request, options = {}, metadata = new grpc.Metadata()) {
  const m = echo(kind);
  return new Promise((resolve) => {
    client.makeUnaryRequest(m.path, m.serialize, m.deserialize, Buffer.from(request), metadata,
      options, (error, answer) => resolve({ code: error ? error.code : status.OK,
        details: error ? error.details : '', answer }));
  });
}

// Everything that a readable call yields, and its final status.
function collect(call) {
  const messages = [];
  return new Promise((resolve) => {
    let last = null;
    call.on('data', (m) => messages.push(m));
    call.on('error', () => {});
    call.on('status', (s) => { last = s; });
    const finish = () => resolve({ messages, code: last && last.code, details: last && last.details });
    call.on('end', () => setImmediate(finish));
    call.on('close', () => setImmediate(finish));
  });
}

function bidi(client, kind) {
  const m = echo(kind);
  return client.makeBidiStreamRequest(m.path, m.serialize, m.deserialize, new grpc.Metadata(), {});
}

const cases = {
  async unary(client) {
    const got = await unary(client, 'Unary', 'hello');
    assert.strictEqual(got.code, status.OK);
    assert.deepStrictEqual(got.answer, Buffer.from('hello'));
  },

  async large(client) {
    const request = Buffer.alloc(3 * 1024 * 1024, 'abcdefg');
    const got = await unary(client, 'Unary', request);
    assert.ok(request.equals(got.answer));
  },

  async stream(client) {
    const call = bidi(client, 'Stream');
    const all = collect(call);
    for (const n of [31415, 9, 0, 58979]) call.write(Buffer.alloc(n));
    call.end();
    const got = await all;
    assert.deepStrictEqual(got.messages.map((m) => m.length), [31415, 9, 0, 58979]);
    assert.strictEqual(got.code, status.OK);
  },

  async emptyStream(client) {
    const call = bidi(client, 'Stream');
    const all = collect(call);
    call.end();
    const got = await all;
    assert.strictEqual(got.messages.length, 0);
    assert.strictEqual(got.code, status.OK);
  },

  async flood(client) {
    const m = echo('Flood');
    const request = Buffer.alloc(8);
    request.writeUInt32BE(2000, 0);
    request.writeUInt32BE(10000, 4);
    const got = await collect(client.makeServerStreamRequest(m.path, m.serialize, m.deserialize,
      request, new grpc.Metadata(), {}));
    assert.strictEqual(got.messages.length, 2000);
    assert.ok(got.messages.every((x) => x.length === 10000));
    assert.strictEqual(got.code, status.OK);
  },

  async statusAndMessage(client) {
    const text = '\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \u{1f608}\t\n 100%';
    for (let code = 1; code <= 16; code++) {
      const got = await unary(client, 'Fail', Buffer.concat([Buffer.from([code]), Buffer.from(text)]));
      assert.strictEqual(got.code, code);
      assert.strictEqual(got.details, text);
    }
  },

  async unimplemented(client) {
    assert.strictEqual((await unary(client, 'Nothing', 'x')).code, status.UNIMPLEMENTED);
  },

  // grpc-js says "13 INTERNAL: Received RST_STREAM with code 0" if trailers and reset are wrong.
  async earlyEnd(client) {
    for (let i = 0; i < 20; i++) {
      const call = bidi(client, 'Early');
      const all = collect(call);
      call.write(Buffer.alloc(20000));
      const got = await all;
      assert.strictEqual(got.code, status.PERMISSION_DENIED);
      assert.strictEqual(got.details, 'not you');
    }
  },

  async deadline(client) {
    const got = await unary(client, 'Sleep', 'x', { deadline: Date.now() + 50 });
    assert.strictEqual(got.code, status.DEADLINE_EXCEEDED);
  },

  async cancelStorm(client) {
    const m = echo('Sleep');
    for (let round = 0; round < 15; round++) {
      const calls = [];
      for (let i = 0; i < 100; i++) {
        calls.push(new Promise((resolve) => {
          const call = client.makeUnaryRequest(m.path, m.serialize, m.deserialize,
            Buffer.from('x'), (error) => resolve(error.code));
          calls[`c${i}`] = call;
        }));
      }
      assert.strictEqual((await unary(client, 'Unary', 'x')).code, status.OK);
      for (let i = 0; i < 100; i++) calls[`c${i}`].cancel();
      for (const code of await Promise.all(calls)) assert.strictEqual(code, status.CANCELLED);
    }
    assert.strictEqual((await unary(client, 'Unary', 'alive')).code, status.OK);
  },

  async compression(client) {
    const zip = new grpc.Client(client.getChannel().getTarget(), grpc.credentials.createInsecure(),
      { 'grpc.default_compression_algorithm': 2, 'grpc.use_local_subchannel_pool': 1 });
    assert.strictEqual((await unary(zip, 'Unary', Buffer.alloc(1000))).code, status.UNIMPLEMENTED);
    zip.close();
  },

  async concurrent(client) {
    const requests = [];
    for (let i = 0; i < 100; i++) requests.push(Buffer.alloc(200000, String(i)));
    const got = await Promise.all(requests.map((r) => unary(client, 'Unary', r)));
    got.forEach((g, i) => assert.ok(requests[i].equals(g.answer)));
  },
};

function load(file) {
  return grpc.loadPackageDefinition(loader.loadSync(file, { includeDirs: [protoDir] }));
}

async function health(address, child) {
  const { Health } = load('grpc/health/v1/health.proto').grpc.health.v1;
  const client = new Health(address, grpc.credentials.createInsecure());
  const check = (service) => new Promise((resolve) => {
    client.check({ service }, (error, answer) => resolve(error ? error.code : answer.status));
  });
  assert.strictEqual(await check(''), 1);
  assert.strictEqual(await check('zoned.v1.History'), 1);
  assert.strictEqual(await check('no.such'), status.NOT_FOUND);
  const watch = client.watch({ service: '' });
  const seen = [];
  await new Promise((resolve) => {
    watch.on('error', () => {});
    watch.on('data', (m) => {
      seen.push(m.status);
      if (seen.length < 3) child.kill('SIGUSR1');
      else resolve();
    });
  });
  assert.deepStrictEqual(seen, [1, 2, 1]);
  watch.cancel();
  client.close();
}

async function reflection(address, version) {
  const { ServerReflection } = load(`grpc/reflection/${version}/reflection.proto`)
    .grpc.reflection[version];
  const client = new ServerReflection(address, grpc.credentials.createInsecure());
  const call = client.serverReflectionInfo();
  const all = collect(call);
  call.write({ listServices: '*' });
  call.write({ fileContainingSymbol: 'zoned.v1.Memory' });
  call.write({ fileContainingSymbol: 'no.such' });
  call.end();
  const { messages, code } = await all;
  assert.strictEqual(code, status.OK);
  const names = messages[0].listServicesResponse.service.map((s) => s.name);
  assert.ok(names.includes('zoned.v1.Memory'));
  assert.ok(messages[1].fileDescriptorResponse.fileDescriptorProto.length > 3);
  assert.strictEqual(messages[2].errorResponse.errorCode, status.NOT_FOUND);
  client.close();
}

async function token() {
  const { child, ended, address } = await start(['tcp:127.0.0.1:0', 'secret-token']);
  const client = new grpc.Client(address, grpc.credentials.createInsecure());
  const metadata = new grpc.Metadata();
  assert.strictEqual((await unary(client, 'Unary', 'x')).code, status.UNAUTHENTICATED);
  metadata.set('authorization', 'Bearer secret-token');
  assert.strictEqual((await unary(client, 'Unary', 'x', {}, metadata)).code, status.OK);
  client.close();
  child.kill('SIGTERM');
  assert.strictEqual(await ended, 0);
}

async function main() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'interop.'));
  const { child, ended, address } = await start([`unix:${dir}/s`]);
  try {
    const client = new grpc.Client(address, grpc.credentials.createInsecure());
    for (const [name, run] of Object.entries(cases)) {
      await run(client);
      console.log(`ok ${name}`);
    }
    await health(address, child);
    console.log('ok health');
    for (const version of ['v1', 'v1alpha']) await reflection(address, version);
    console.log('ok reflection');
    client.close();
    await token();
    console.log('ok token');
  } finally {
    child.kill('SIGTERM');
    const code = await ended;
    fs.rmSync(dir, { recursive: true });
    assert.strictEqual(code, 0);
  }
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
