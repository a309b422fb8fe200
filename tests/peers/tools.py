#!/usr/bin/python3 -B
"""tools.py - the editor's configurations, and the rooms of a class.

Run by `make tools`. What lsof, netstat, /proc, gdb and strace show of the
programs is in README.md and in labs 02 to 07 and 13: `make readme labs` types it.
"""

import json
import os
import re
import subprocess

import outside


class Editor(outside.Case):
    """The configurations of .vscode, as far as they go without the editor:
    what it hands to gdb, in gdb's machine interface, and to the compiler."""

    def read(self, name):
        """JSON, and whole lines of comment, which the editor allows."""
        with open(os.path.join('.vscode', name), encoding='utf-8') as file:
            text = re.sub(r'^\s*//.*$', '', file.read(), flags=re.M)
        return json.loads(text.replace('${workspaceFolder}', os.getcwd()))

    def gdb(self, path, *commands):
        child = self.start(self.need('gdb', 'gdb'), '-nx', '-q', '-i=mi', DEBUGINFOD_URLS='')
        for command in (f'-file-exec-and-symbols "{path}"', *commands):
            child.expect(r'\(gdb\) ?\n')
            child.sendline(command)
        return child

    def test_launch_configurations(self):
        tasks = {task['label']: task for task in self.read('tasks.json')['tasks']}
        launch = self.read('launch.json')
        programs = {one['name']: os.path.basename(one['program'])
                    for one in launch['configurations']}
        self.assertEqual(list(programs.values()), ['server', 'client', 'server'])
        self.assertEqual([programs[name] for name in launch['compounds'][0]['configurations']],
                         ['server', 'client'])
        for one in launch['configurations']:
            self.assertEqual([one['type'], one['MIMode']], ['cppdbg', 'gdb'])
            if one['request'] == 'attach':
                self.assertEqual(one['processId'], '${command:pickProcess}')
                pid = outside.Server(self, '-p', '0').pid
                self.gdb(one['program'], f'-target-attach {pid}').expect(
                    r'\*stopped,.*func="[^"]*accept"')
                continue
            task = tasks[one['preLaunchTask']]
            subprocess.run([task['command'], *task.get('args', [])], check=True,
                           stdout=subprocess.DEVNULL, timeout=outside.LIMIT)
            self.assertTrue(one['stopAtEntry'])
            child = self.gdb(one['program'], f'-environment-cd "{one["cwd"]}"',
                             '-exec-arguments ' + ' '.join(one['args']),
                             '-break-insert main', '-exec-run')
            child.expect(r'\*stopped,reason="breakpoint-hit".*func="main"')

    def test_the_compiler_accepts_what_the_editor_believes(self):
        one, = self.read('c_cpp_properties.json')['configurations']
        subprocess.run(
            [one['compilerPath'], '-fsyntax-only', '-Werror', '-Wall', '-std=' + one['cStandard'],
             *('-I' + path for path in one['includePath']),
             *('-D' + name for name in one['defines']), 'server.c', 'handler.c', 'client.c'],
            check=True, timeout=outside.LIMIT)
        self.assertIn('ms-vscode.cpptools', self.read('extensions.json')['recommendations'])


class Rooms(outside.Case):
    """lab-notes/programs/room.sh, as a user who has no rights."""

    def room(self, *options):
        """A terminal in a new room, or in the one of that number."""
        user = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
        return self.start_in_terminal(*user if os.geteuid() == 0 else [],
                                      'lab-notes/programs/room.sh', *options, HOME='/')

    def test_two_rooms_have_a_port_1208_each(self):
        server, client = ('./' + os.path.relpath(outside.program(name))
                          for name in ('server', 'client'))
        rooms = [self.room(), self.room()]
        networks = set()
        for room in rooms:
            room.expect(r'Room (\d+)\. ')
            number = room.match[1]
            networks.add(os.readlink(f'/proc/{number}/ns/net')[5:-1])
            room.sendline(server)
            room.expect(r'Listening on \S+:1208, pid (\d+)')
        self.assertEqual(len(networks), 2)
        wire, guest = self.room(number), self.room(number)
        wire.sendline('tcpdump --immediate-mode -nli lo tcp port 1208')
        wire.expect('listening on lo')
        guest.sendline(client + '; exit')
        guest.expect('Connected to')
        guest.sendline('ping')
        guest.expect('pong')
        wire.expect(r'Flags \[P\.\]')
        wire.sendintr()
        wire.sendline('lsof -nP -i :1208; exit')
        wire.expect(rf'server +{room.match[1]} .*LISTEN')
        guest.sendline('quit')
        for room in rooms:
            room.sendintr()
            room.expect('Server Stopped')
            room.sendline('exit')
        for terminal in wire, guest, *rooms:
            self.assertEqual(self.see_end(terminal)[1], 0)

        def are_gone():  # lsns fails when any process ends while it looks
            told = subprocess.run(['lsns', '-n', '-t', 'net', '-o', 'NS'], text=True,
                                  capture_output=True, check=False)
            return told.returncode == 0 and not networks & set(told.stdout.split())
        self.assertTrue(outside.until(are_gone))

    def test_a_system_that_forbids_them(self):
        told = subprocess.run(
            ['unshare', '--user', '--map-root-user', 'sh', '-c',
             'echo 0 > /proc/sys/user/max_user_namespaces; lab-notes/programs/room.sh'],
            text=True, capture_output=True, check=False)
        self.assertEqual(told.returncode, 1)
        self.assert_whole(told.stderr, r'No room for you: .*max_user_namespaces=0.*-p \d{5}\n')


if __name__ == '__main__':
    outside.main()
