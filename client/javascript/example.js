#!/usr/bin/env node
// zoned from JavaScript, with nothing of zoned's but its .proto files.
//
//     npm install && node example.js [ADDRESS]      default: $ZONED_ADDRESS
//
// Makes a machine, allocates and maps, streams a thousand ops over Run, follows the
// history with Tail, and asks it in SQL.
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const protoDir = process.env.ZONED_PROTO || path.resolve(__dirname, '../../proto');
const address = process.argv[2] || process.env.ZONED_ADDRESS;
if (!address) {
  console.error('example.js: no address; pass one or set ZONED_ADDRESS');
  process.exit(2);
}

// Enum values come as names, 64-bit numbers as strings: no op number is ever rounded.
const { zoned: { v1 } } = grpc.loadPackageDefinition(loader.loadSync(
  ['machines', 'memory', 'history'].map((f) => `zoned/v1/${f}.proto`),
  { includeDirs: [protoDir], keepCase: true, enums: String, longs: String, defaults: true, oneofs: true }));

const metadata = new grpc.Metadata();
if (process.env.ZONED_TOKEN_FILE) {
  const [token] = fs.readFileSync(process.env.ZONED_TOKEN_FILE, 'utf8').split('\n');
  metadata.set('authorization', `Bearer ${token}`);
}

function connect(Service) {
  const client = new Service(address.replace(/^tcp:/, ''), grpc.credentials.createInsecure());
  // client.ask('AllocPages', {...}) is a promise of the answer.
  client.ask = (method, request) => new Promise((resolve, reject) => {
    client[method](request, metadata, { deadline: Date.now() + 30000 },
      (error, answer) => (error ? reject(error) : resolve(answer)));
  });
  return client;
}

const machines = connect(v1.Machines);
const memory = connect(v1.Memory);
const history = connect(v1.History);

// Everything that a stream of answers brings.
async function gather(stream) {
  const answers = [];
  for await (const answer of stream) answers.push(answer);
  return answers;
}

async function main() {
  const machine = `javascript-${process.pid}`;
  const context = { machine, owner: 'example' };
  await machines.ask('Create', { name: machine, config: { ram: 1 << 30 } });

  // One op, one call. The status is part of the answer. GFP_HIGHUSER is 0x100cc2.
  const page = await memory.ask('AllocPages', { context, gfp: 0x100cc2 });
  console.log(`alloc: op ${page.outcome.op} ${page.outcome.status} pfn 0x${page.pfn.toString(16)} ${page.zone}`);
  const mapped = await memory.ask('Kmap', { context, pfn: page.pfn });
  console.log(`kmap: 0x${mapped.va.toString(16)}, slot ${mapped.slot}`);
  const again = await memory.ask('FreePages', { context, pfn: page.pfn, order: 3 });
  console.log(`free with the wrong order: ${again.outcome.status}`);

  // Many ops, one stream. GFP_KERNEL is 0xcc0.
  const run = memory.Run(metadata);
  const results = gather(run);
  for (let batch = 0; batch < 10; batch++) {
    run.write({ context, ops: Array.from({ length: 100 }, () => ({ alloc_pages: { gfp: 0xcc0 } })) });
  }
  run.end();
  const frames = (await results).flatMap((b) => b.results.map((r) => r.alloc_pages.pfn));
  console.log(`run: ${frames.length} allocations, ${new Set(frames).size} different frames`);

  // What was recorded, from the start, until there is no more.
  const tail = await gather(history.Tail({ machine, from_start: true, no_follow: true }, metadata));
  const records = tail.flatMap((t) => t.records);
  console.log(`tail: ${records.length} records, the last is op ${records.at(-1).op} ${records.at(-1).name}`);

  const answers = await gather(history.Query({
    sql: 'select owner, zone, count(*) from allocations where machine = ?1 group by 1, 2',
    parameters: [{ text: machine }],
  }, metadata));
  for (const row of answers.flatMap((a) => a.rows)) {
    console.log('sql:', ...row.values.map((v) => v[v.value]));
  }
  await machines.ask('Destroy', { machine });
}

main().catch((error) => {
  console.error(`example.js: ${error.message}`);
  process.exitCode = 1;
}).finally(() => [machines, memory, history].forEach((c) => c.close()));
