// server.js - the server of step 8 in JavaScript: node server.js [PORT] (1208).
const net = require('net');

// The reply to one request, or null after quit. One character is one byte.
function reply(line) {
  const request = line.replace(/^[ \t\r\v\f]+|[ \t\r\v\f]+$/g, '');
  const word = request.split(' ', 1)[0];
  if (word === 'quit') return null;
  if (word === 'ping') return 'pong\n';
  if (word === 'echo') return request.slice(5) + '\n';
  if (word === '') return '';
  const shown = word.slice(0, 64).replace(/[^!-~]/g, (byte) =>
    '\\x' + byte.charCodeAt(0).toString(16).padStart(2, '0'));
  return `Unsupported command: ${shown}${word.length > 64 ? '...' : ''}\n`;
}

// One client. It has no thread: Node calls us when bytes have come.
function converse(socket) {
  let held = ''; // a line whose end has not come
  let skipping = false;
  let open = true;

  function answer(line) {
    const words = line.length < 4096 ? reply(line) : 'Line too long, limit 4096 bytes\n';
    if (words === null) hangUp();
    else socket.write(words, 'latin1');
  }

  function hangUp() { // FIN first, and read on: two seconds at most
    open = false;
    socket.end();
    setTimeout(() => socket.destroy(), 2000).unref();
  }

  socket.setEncoding('latin1');
  socket.on('error', () => socket.destroy());
  socket.on('data', (bytes) => {
    const lines = (held + bytes).split('\n');
    held = lines.pop();
    for (const line of lines) {
      if (open && !skipping) answer(line);
      skipping = false;
    }
    if (held.length >= 4096) {
      if (open && !skipping) answer(held);
      skipping = true;
      held = '';
    }
  });
  socket.on('end', () => {
    if (open && held) answer(held);
    if (open) hangUp();
  });
}

const server = net.createServer({ allowHalfOpen: true }, converse);
server.on('error', (error) => console.error('Fail to start server,', error.message));
server.listen(Number(process.argv[2] || 1208), () => console.log('Server Started ...'));
