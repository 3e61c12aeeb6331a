import java.util.Map;
import org.elasticsearch.env.Environment;
import org.elasticsearch.plugins.PluginsLoader;

/** How Elasticsearch 9 loads the modules and plugins in its home. */
final class Plugins {
    static PluginsLoader of(Environment env) {
        return PluginsLoader.createPluginsLoader(PluginsLoader.loadModulesBundles(env.modulesDir(), false),
            PluginsLoader.loadPluginsBundles(env.pluginsDir(), false), Map.of(), false);
    }
}
