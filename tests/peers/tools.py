#!/usr/bin/python3 -B
"""tools.py - the editor's launch configurations.

Run by `make tools`. What lsof, netstat, /proc, gdb and strace show of the
programs is in README.md and in labs 02 to 07 and 13: `make readme labs` types it.
"""

import json
import os
import re
import subprocess

import outside


class Editor(outside.Case):
    """The launch configurations of .vscode, as far as they go without the
    editor: what it hands to gdb, in gdb's machine interface, stops in main()."""

    def read(self, name):
        """JSON, and whole lines of comment, which the editor allows."""
        with open(os.path.join('.vscode', name), encoding='utf-8') as file:
            return json.loads(re.sub(r'^\s*//.*$', '', file.read(), flags=re.M))

    def test_launch_configurations(self):
        gdb = self.need('gdb', 'gdb')
        tasks = {task['label']: task for task in self.read('tasks.json')['tasks']}
        launches = self.read('launch.json')['configurations']
        self.assertEqual([launch['program'] for launch in launches],
                         ['${workspaceFolder}/server', '${workspaceFolder}/client'])
        for launch in launches:
            task = tasks[launch['preLaunchTask']]
            subprocess.run([task['command'], *task.get('args', [])], check=True,
                           stdout=subprocess.DEVNULL, timeout=outside.LIMIT)
            self.assertEqual([launch['type'], launch['MIMode'],
                              launch['stopAtEntry']], ['cppdbg', 'gdb', True])
            path, folder = (launch[key].replace('${workspaceFolder}', os.getcwd())
                            for key in ('program', 'cwd'))
            child = self.start(gdb, '-nx', '-q', '-i=mi', DEBUGINFOD_URLS='')
            for command in (f'-file-exec-and-symbols "{path}"',
                            f'-environment-cd "{folder}"',
                            '-exec-arguments ' + ' '.join(launch['args']),
                            '-break-insert main', '-exec-run'):
                child.expect(r'\(gdb\) ?\n')
                child.sendline(command)
            child.expect(r'\*stopped,reason="breakpoint-hit".*func="main"')


if __name__ == '__main__':
    outside.main()
